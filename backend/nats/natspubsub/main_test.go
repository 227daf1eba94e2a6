package natspubsub_test

import (
	"context"
	"fmt"
	"os"
	"strings"
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

// brokers are all servers that the tests run against.
func brokers(t *testing.T) []broker {
	t.Helper()
	return []broker{inProcess(t), overTCP(t), shared()}
}

func inProcess(t *testing.T) broker {
	srv := embedded(t, natsembed.Config{Dir: t.TempDir()})
	return broker{"embedded in process", func(t *testing.T) *nats.Conn {
		conn, err := srv.Connect()
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
		conn, err := nats.Connect(url, nats.Timeout(2*time.Second), nats.MaxReconnects(-1))
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

func dial(t *testing.T, url string) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
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

// freshPrefix names a namespace of the test's own and removes its streams afterwards.
func freshPrefix(t *testing.T, conn *nats.Conn) string {
	t.Helper()
	prefix := fmt.Sprintf("bstest-%d-%d", os.Getpid(), time.Now().UnixNano())
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
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

// newDriver is a driver in a namespace of its own, unless cfg names one.
func newDriver(t *testing.T, conn *nats.Conn, cfg natspubsub.Config) *natspubsub.Driver {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = freshPrefix(t, conn)
	}
	d, err := natspubsub.New(t.Context(), conn, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func message(id, key string) pubsub.Message {
	return pubsub.Message{ID: id, Topic: "t", Key: key, Payload: []byte(id), Time: time.Unix(1_700_000_000, 5).UTC()}
}

// open is a member of group g, with the defaults that package pubsub fills in.
func open(t *testing.T, d *natspubsub.Driver, change func(*pubsub.Subscription)) pubsub.Receiver {
	t.Helper()
	s := pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Lease: 30 * time.Second, LaneDepth: 64}
	if change != nil {
		change(&s)
	}
	r, err := d.Open(t.Context(), s)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// receive waits for one delivery or more.
func receive(t *testing.T, r pubsub.Receiver, limit int) []pubsub.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ds, err := r.Receive(ctx, limit)
	require.NoError(t, err)
	require.NotEmpty(t, ds)
	require.LessOrEqual(t, len(ds), limit)
	return ds
}

// receiveNone fails if something arrives within the time in which it would.
func receiveNone(t *testing.T, r pubsub.Receiver, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	ds, err := r.Receive(ctx, 10)
	require.ErrorIs(t, err, context.DeadlineExceeded, "unexpected: %v", ds)
}

func settle(t *testing.T, r pubsub.Receiver, kind pubsub.VerdictKind, ds ...pubsub.Delivery) {
	t.Helper()
	verdicts := make([]pubsub.Verdict, len(ds))
	for i, d := range ds {
		verdicts[i] = pubsub.Verdict{Token: d.Token, Kind: kind}
	}
	require.NoError(t, r.Settle(t.Context(), verdicts))
}

func publish(t *testing.T, d *natspubsub.Driver, msgs ...pubsub.Message) {
	t.Helper()
	require.Nil(t, d.Publish(t.Context(), msgs))
}
