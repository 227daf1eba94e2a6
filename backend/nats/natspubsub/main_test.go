package natspubsub_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(clusterNode); spec != "" {
		beNode(spec)
	}
	if url := os.Getenv(memberURL); url != "" {
		beMember(url)
	}
	if dir := os.Getenv(childDir); dir != "" {
		publishForEver(dir)
	}
	goleak.VerifyTestMain(m)
}

// broker is where a test runs: it makes connections to one server.
type broker struct {
	name    string
	connect func(t *testing.T) *nats.Conn
}

// patience is how long a test waits for what must happen, on a machine of whatever speed.
const patience = 2 * time.Minute

// soon is a context that ends when a test has waited long enough. It keeps clients from their own, shorter timeouts.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// long tells that the long forms of tests are asked for.
func long() bool { return os.Getenv("BACKSTAY_LONG") == "1" }

// brokers are all servers that the tests run against.
func brokers(t *testing.T) []broker {
	t.Helper()
	return []broker{inProcess(t), overTCP(t), shared()}
}

// atOnce runs a subtest for each case at the same time. They wait more than they work, and t.Parallel would let no more
// run than there are processors. It is for top-level tests only, which it makes parallel: testing has a data race when
// subtests that run at the same time call t.Parallel.
func atOnce[C any](t *testing.T, cases []C, name func(C) string, test func(t *testing.T, c C)) {
	t.Helper()
	t.Parallel()
	var wg sync.WaitGroup
	for _, c := range cases {
		wg.Go(func() {
			t.Run(name(c), func(t *testing.T) { test(t, c) })
		})
	}
	wg.Wait()
}

// onBrokers runs test on every server.
func onBrokers(t *testing.T, test func(t *testing.T, b broker)) {
	t.Helper()
	atOnce(t, brokers(t), func(b broker) string { return b.name }, test)
}

// onAll is onBrokers with one connection to each.
func onAll(t *testing.T, test func(t *testing.T, conn *nats.Conn)) {
	t.Helper()
	onBrokers(t, func(t *testing.T, b broker) { test(t, b.connect(t)) })
}

func inProcess(t *testing.T) broker {
	srv := embedded(t, natsembed.Config{Dir: t.TempDir()})
	return broker{"embedded in process", func(t *testing.T) *nats.Conn {
		conn, err := insist(func() (*nats.Conn, error) { return srv.Connect(nats.Timeout(patience)) })
		require.NoError(t, err)
		t.Cleanup(conn.Close)
		return conn
	}}
}

func overTCP(t *testing.T) broker {
	srv := embedded(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	return broker{"embedded over TCP", func(t *testing.T) *nats.Conn { return dial(t, srv.URL()) }}
}

// shared is the server of the machine, in whatever version it has.
func shared() broker {
	url := os.Getenv("BACKSTAY_NATS_URL")
	if url == "" {
		url = "nats://127.0.0.1:4222"
	}
	return broker{"shared server", func(t *testing.T) *nats.Conn {
		conn, err := insist(func() (*nats.Conn, error) {
			return nats.Connect(url, nats.Timeout(patience), nats.MaxReconnects(-1))
		})
		if err == nil {
			t.Cleanup(conn.Close)
			return conn
		}
		if os.Getenv("BACKSTAY_REQUIRE_SERVICES") == "1" {
			t.Fatalf("no NATS server at %s: %v", url, err)
		}
		t.Skipf("no NATS server at %s (%v): start one with 'nats-server -js', or set BACKSTAY_NATS_URL", url, err)
		return nil
	}}
}

// insist connects, if there is a server: on a very slow machine its first ping comes between the client's and the answer,
// and the client gives up.
func insist[C any](connect func() (C, error)) (c C, err error) {
	for range 10 {
		if c, err = connect(); err == nil || errors.Is(err, nats.ErrNoServers) {
			break
		}
	}
	return c, err
}

func dial(t *testing.T, url string) *nats.Conn {
	t.Helper()
	conn, err := insist(func() (*nats.Conn, error) {
		return nats.Connect(url, nats.Timeout(patience), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	})
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	return conn
}

func embedded(t *testing.T, cfg natsembed.Config) *natsembed.Server {
	t.Helper()
	srv, err := natsembed.Start(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, srv.Close()) })
	return srv
}

var prefixes atomic.Int64

// freshPrefix names a namespace of the test's own and removes its streams afterwards.
func freshPrefix(t *testing.T, conn *nats.Conn) string {
	t.Helper()
	prefix := fmt.Sprintf("bstest-%d-%d-%d", os.Getpid(), time.Now().UnixNano(), prefixes.Add(1))
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		names := js.StreamNames(ctx)
		for name := range names.Name() {
			if strings.HasPrefix(name, prefix+"~") {
				require.NoError(t, js.DeleteStream(ctx, name))
			}
		}
		require.NoError(t, names.Err())
	})
	return prefix
}

// newDriver is a driver in a namespace of its own, unless cfg names one, and patient unless cfg says otherwise.
func newDriver(t *testing.T, conn *nats.Conn, cfg natspubsub.Config) *natspubsub.Driver {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = freshPrefix(t, conn)
	}
	if cfg.PublishTimeout == 0 {
		cfg.PublishTimeout = patience
	}
	d, err := natspubsub.New(soon(t), conn, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func message(id, key string) pubsub.Message {
	return pubsub.Message{ID: id, Topic: "t", Key: key, Payload: []byte(id), Time: time.Unix(1_700_000_000, 5).UTC()}
}

// open is a member of group g. Its lease is longer than receive waits, so that what is not given back does not come.
func open(t *testing.T, d *natspubsub.Driver, change func(*pubsub.Subscription)) pubsub.Receiver {
	t.Helper()
	s := pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Lease: 2 * patience, LaneDepth: 64}
	if change != nil {
		change(&s)
	}
	r, err := d.Open(soon(t), s)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// receive waits for one delivery or more.
func receive(t *testing.T, r pubsub.Receiver, limit int) []pubsub.Delivery {
	t.Helper()
	ds, err := r.Receive(soon(t), limit)
	require.NoError(t, err)
	require.NotEmpty(t, ds)
	require.LessOrEqual(t, len(ds), limit)
	return slices.Clone(ds) // the receiver uses its slice again
}

// receiveNone fails if something arrives within the time in which it would.
func receiveNone(t *testing.T, r pubsub.Receiver, within time.Duration) {
	t.Helper()
	require.Empty(t, arrivals(t, r, within), "unexpected")
}

// arrivals are what arrives first within the time in which it would, or nothing.
func arrivals(t *testing.T, r pubsub.Receiver, within time.Duration) []pubsub.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	ds, err := r.Receive(ctx, 10)
	if err != nil {
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	return slices.Clone(ds)
}

func settle(t *testing.T, r pubsub.Receiver, kind pubsub.VerdictKind, ds ...pubsub.Delivery) {
	t.Helper()
	verdicts := make([]pubsub.Verdict, len(ds))
	for i, d := range ds {
		verdicts[i] = pubsub.Verdict{Token: d.Token, Kind: kind}
	}
	require.NoError(t, r.Settle(soon(t), verdicts))
}

func publish(t *testing.T, d *natspubsub.Driver, msgs ...pubsub.Message) {
	t.Helper()
	require.Nil(t, d.Publish(t.Context(), msgs))
}
