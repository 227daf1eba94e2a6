package rabbitpubsub_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/pubsub"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(memberURL); url != "" {
		beMember(url)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		removeNode()
		removeVhost()
		removeExamples()
		os.Exit(code)
	}))
}

// patience is how long a test waits for what must happen, on a machine of whatever speed.
const patience = 2 * time.Minute

// soon is a context that ends when a test has waited long enough.
func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// long tells that the long forms of tests are asked for.
func long() bool { return os.Getenv("BACKSTAY_LONG") == "1" }

// sharedURL is the server of the machine, found by BACKSTAY_RABBITMQ_URL.
func sharedURL() string {
	if url := os.Getenv("BACKSTAY_RABBITMQ_URL"); url != "" {
		return url
	}
	return "amqp://guest:guest@127.0.0.1:5672"
}

// vhost is a virtual host of this process on the shared server, made when it is first needed. Where that is not allowed
// the tests share the default one: each has names of its own.
var vhost struct {
	once sync.Once
	made bool
	name string
	err  error // no server
}

func makeVhost() {
	conn, err := amqp.Dial(sharedURL())
	if err != nil {
		vhost.err = err
		return
	}
	_ = conn.Close()
	name := fmt.Sprintf("bstest-%d-%d", os.Getpid(), time.Now().UnixNano())
	if exec.Command("rabbitmqctl", "-q", "add_vhost", name).Run() != nil {
		return
	}
	vhost.made, vhost.name = true, name
	if out, err := exec.Command("rabbitmqctl", "-q", "set_permissions", "-p", name, "guest", ".*", ".*", ".*").CombinedOutput(); err != nil {
		vhost.err = fmt.Errorf("set_permissions: %w: %s", err, out)
	}
}

// removeExamples removes the exchanges that the examples leave on the shared server.
func removeExamples() {
	_ = onChannel(sharedURL(), func(ch *amqp.Channel) error {
		for _, topic := range []string{"orders.placed", "nobody.reads.this"} {
			for _, name := range []string{topic, topic + "::unrouted:4"} {
				if err := ch.ExchangeDelete("example:"+name, false, false); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func removeVhost() {
	if vhost.made {
		_ = exec.Command("rabbitmqctl", "-q", "delete_vhost", vhost.name).Run()
	}
}

// shared is the URL of the shared server. The test is skipped where there is none.
func shared(t testing.TB) string {
	t.Helper()
	vhost.once.Do(makeVhost)
	switch {
	case vhost.err == nil:
		return sharedURL() + "/" + vhost.name
	case os.Getenv("BACKSTAY_REQUIRE_SERVICES") == "1":
		t.Fatalf("no RabbitMQ server at %s: %v", sharedURL(), vhost.err)
	default:
		t.Skipf("no RabbitMQ server at %s (%v): start one with 'rabbitmq-server -detached', or set BACKSTAY_RABBITMQ_URL", sharedURL(), vhost.err)
	}
	return ""
}

var prefixes atomic.Int64

func freshPrefix() string {
	return fmt.Sprintf("bstest-%d-%d-%d", os.Getpid(), time.Now().UnixNano(), prefixes.Add(1))
}

// driver is a Driver that remembers what it has made, for the end of the test: a quorum queue keeps files open.
type driver struct {
	*rabbitpubsub.Driver
	url  string
	cfg  rabbitpubsub.Config
	mu   sync.Mutex
	subs []pubsub.Subscription
}

func (d *driver) Open(ctx context.Context, s pubsub.Subscription) (pubsub.Receiver, error) {
	d.mu.Lock()
	d.subs = append(d.subs, s)
	d.mu.Unlock()
	return d.Driver.Open(ctx, s)
}

// newDriver is a driver with names of its own, unless cfg names a prefix, and patient unless cfg says otherwise.
func newDriver(t testing.TB, url string, cfg rabbitpubsub.Config, opts ...rabbitpubsub.Option) *driver {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = freshPrefix()
	}
	if cfg.PublishTimeout == 0 {
		cfg.PublishTimeout = patience
	}
	d := &driver{url: url, cfg: cfg}
	var err error
	d.Driver, err = rabbitpubsub.Open(soon(t), url, cfg, opts...)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, d.Close())
		d.remove(t)
	})
	return d
}

// remove deletes what was made, on a server that is still there.
func (d *driver) remove(t testing.TB) {
	t.Helper()
	conn, err := amqp.Dial(d.url)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	require.NoError(t, err)
	done := make(map[string]bool)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.subs {
		queues, exchanges := rabbitpubsub.Entities(d.cfg, s)
		for _, q := range queues {
			if !done[q] {
				_, err := ch.QueueDelete(q, false, false, false)
				require.NoError(t, err)
			}
			done[q] = true
		}
		for _, e := range exchanges {
			if !done[e] {
				require.NoError(t, ch.ExchangeDelete(e, false, false))
			}
			done[e] = true
		}
	}
}

func message(id, key string) pubsub.Message {
	return pubsub.Message{ID: id, Topic: "t", Key: key, Payload: []byte(id), Time: time.Unix(1_700_000_000, 5).UTC()}
}

// subscription is of group g, with a lease that is longer than a test waits.
func subscription(change ...func(*pubsub.Subscription)) pubsub.Subscription {
	s := pubsub.Subscription{Topic: "t", Group: "g", Start: "end", Lease: 2 * patience, LaneDepth: 64}
	for _, c := range change {
		c(&s)
	}
	return s
}

func ordered(s *pubsub.Subscription) { s.Ordered = true }

// open is a member of a group.
func open(t testing.TB, d pubsub.Driver, change ...func(*pubsub.Subscription)) pubsub.Receiver {
	t.Helper()
	r, err := d.Open(soon(t), subscription(change...))
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

func publish(t testing.TB, d pubsub.Driver, msgs ...pubsub.Message) {
	t.Helper()
	errs := d.Publish(t.Context(), msgs)
	require.NoError(t, errors.Join(errs...))
}

func ids(ds []pubsub.Delivery) []string {
	names := make([]string, len(ds))
	for i := range ds {
		names[i] = ds[i].ID
	}
	return names
}
