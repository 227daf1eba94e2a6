package redispubsub_test

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/pubsub"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(memberURL); url != "" {
		beMember(url)
	}
	redispubsub.BeatSeldom()
	_ = flag.Set("test.parallel", "8") // unless the command line says otherwise: they wait more than they work
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must happen, on a machine of whatever speed.
const patience = 2 * time.Minute

// long tells that the long forms of tests are asked for.
func long() bool { return os.Getenv("BACKSTAY_LONG") == "1" }

// soon is a context that ends when a test has waited long enough.
func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// dial returns a client with the options that the package recommends.
func dial(t testing.TB, url string) rueidis.Client {
	t.Helper()
	opt, err := redispubsub.ClientOption(url)
	require.NoError(t, err)
	opt.Dialer.Timeout = patience
	client, err := rueidis.NewClient(opt)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// freshPrefix names a namespace of the test's own and removes its keys afterwards.
func freshPrefix(t testing.TB, client rueidis.Client) string {
	t.Helper()
	prefix := redistest.Prefix(t)
	t.Cleanup(func() { removeAll(t, client, prefix) })
	return prefix
}

func removeAll(t testing.TB, client rueidis.Client, prefix string) {
	t.Helper()
	ctx := context.Background()
	for cursor := uint64(0); ; {
		page, err := client.Do(ctx, client.B().Scan().Cursor(cursor).Match("{"+prefix+".*").Count(1000).Build()).AsScanEntry()
		require.NoError(t, err)
		for _, key := range page.Elements {
			require.NoError(t, client.Do(ctx, client.B().Unlink().Key(key).Build()).Error())
		}
		if cursor = page.Cursor; cursor == 0 {
			return
		}
	}
}

// newDriver is a driver in a namespace of its own, unless cfg names one.
func newDriver(t testing.TB, client rueidis.Client, cfg redispubsub.Config) *redispubsub.Driver {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = freshPrefix(t, client)
	}
	d, err := redispubsub.New(soon(t), client, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// shared is a driver on the server of the machine.
func shared(t testing.TB, cfg redispubsub.Config) *redispubsub.Driver {
	t.Helper()
	return newDriver(t, dial(t, redistest.SharedURL(t)), cfg)
}

func message(id, key string) pubsub.Message {
	return pubsub.Message{ID: id, Topic: "t", Key: key, Payload: []byte(id), Time: time.Unix(1_700_000_000, 5).UTC()}
}

// open is a member of group g. Its lease is longer than receive waits, so that what is not given back does not come.
func open(t testing.TB, d *redispubsub.Driver, change func(*pubsub.Subscription)) pubsub.Receiver {
	t.Helper()
	s := pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Lease: 2 * patience, LaneDepth: 64}
	if change != nil {
		change(&s)
	}
	r, err := d.Open(soon(t), s)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// receive waits for n deliveries.
func receive(t testing.TB, r pubsub.Receiver, n int) []pubsub.Delivery {
	t.Helper()
	var all []pubsub.Delivery
	for len(all) < n {
		ds, err := r.Receive(soon(t), n-len(all))
		require.NoError(t, err)
		require.NotEmpty(t, ds)
		all = append(all, ds...)
	}
	return all
}

func settle(t testing.TB, r pubsub.Receiver, kind pubsub.VerdictKind, ds ...pubsub.Delivery) {
	t.Helper()
	verdicts := make([]pubsub.Verdict, len(ds))
	for i, d := range ds {
		verdicts[i] = pubsub.Verdict{Token: d.Token, Kind: kind}
	}
	require.NoError(t, r.Settle(soon(t), verdicts))
}

func publish(t testing.TB, d *redispubsub.Driver, msgs ...pubsub.Message) {
	t.Helper()
	require.Nil(t, d.Publish(soon(t), msgs))
}

func ids(ds []pubsub.Delivery) []string {
	names := make([]string, len(ds))
	for i, d := range ds {
		names[i] = d.ID
	}
	return names
}
