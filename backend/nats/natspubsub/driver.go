package natspubsub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	neturl "net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/pubsub"
)

// Driver is a pubsub.Driver on JetStream. New or Open makes one; the Bus that it is given to closes it. Its methods are
// safe for concurrent use.
type Driver struct {
	cfg     Config
	conn    *nats.Conn
	owned   bool // conn is closed with the driver
	js      jetstream.JetStream
	topics  sync.Map // name → *topic: streams known to exist
	counts  counts
	closed  atomic.Bool
	release func()

	publisher *publisher
	schedules bool         // the server can hold messages back, and the Config lets it
	dedup     atomic.Int64 // nanoseconds
}

var _ pubsub.Driver = (*Driver)(nil)

// New returns a driver on conn, which stays the caller's and must be closed after the driver. It asks the server for
// JetStream, which takes until ctx is done at most, and fails when cfg is invalid or the server has no JetStream or is
// older than 2.9. Give conn unlimited reconnects (nats.MaxReconnects(-1)), or consumers end with the connection.
func New(ctx context.Context, conn *nats.Conn, cfg Config) (*Driver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if conn == nil {
		return nil, errors.New("natspubsub: New: the connection is nil")
	}
	d := &Driver{cfg: cfg.withDefaults(), conn: conn}
	d.release = sync.OnceFunc(d.doClose)
	if err := d.connectJetStream(ctx); err != nil {
		return nil, fmt.Errorf("natspubsub %q: server %s: %w", d.cfg.Name, conn.ConnectedUrlRedacted(), err)
	}
	return d, nil
}

// Open connects to the servers at url with unlimited reconnects and returns a driver that closes the connection when it
// is closed. It fails when none of the servers answers, and as New does. Options, such as credentials, are those of
// nats.Connect.
func Open(ctx context.Context, url string, cfg Config, opts ...nats.Option) (*Driver, error) {
	base := []nats.Option{
		nats.MaxReconnects(-1), nats.Name("backstay"),
		nats.PingInterval(pingInterval), nats.FlusherTimeout(writeTimeout),
	}
	if deadline, ok := ctx.Deadline(); ok {
		base = append(base, nats.Timeout(max(time.Until(deadline), time.Millisecond)))
	}
	conn, err := nats.Connect(url, append(base, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("natspubsub: %w", redact(err))
	}
	d, err := New(ctx, conn, cfg)
	if err != nil {
		conn.Close()
		return nil, err
	}
	d.owned = true
	return d, nil
}

// redact keeps what an error quotes of a URL out of logs: there is a password in it.
func redact(err error) error {
	if _, ok := errors.AsType[*neturl.Error](err); ok {
		return errors.New("the URL cannot be parsed; what is special in a password must be escaped with %")
	}
	return err
}

const (
	// pingInterval finds a silent connection dead after the third ping.
	pingInterval = 5 * time.Second
	// writeTimeout ends a connection that takes no bytes, during which every method of it hangs.
	writeTimeout = 5 * time.Second
)

func (d *Driver) connectJetStream(ctx context.Context) error {
	var major, minor int
	version := d.conn.ConnectedServerVersion()
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err == nil && (major < 2 || major == 2 && minor < 9) {
		return fmt.Errorf("version %s is too old: 2.9 or later is needed", version)
	}
	var err error
	if d.js, err = jetstream.New(d.conn); err != nil {
		return err
	}
	account, err := d.js.AccountInfo(ctx)
	if err != nil {
		return err
	}
	d.schedules = account.API.Level >= levelSchedules && d.cfg.MaxBytes == 0
	d.dedup.Store(int64(dedupWindow))
	if d.cfg.MaxAge > 0 {
		d.noteDedup(d.cfg.MaxAge)
	}
	d.publisher, err = newPublisher(d)
	return err
}

const (
	// levelSchedules is the server's API level since which it can hold messages back: 2.12.
	levelSchedules = 2
	// dedupWindow is what the server gives a stream that does not ask for another.
	dedupWindow = 2 * time.Minute
)

// Capabilities says what the server can do that the driver was connected to. Dedup is that of the topics in use.
func (d *Driver) Capabilities() pubsub.Capabilities {
	return pubsub.Capabilities{
		Driver:              "nats",
		Ordered:             true,
		DelayedNack:         true,
		Durable:             d.cfg.Storage == "file",
		ReplayFromStart:     true,
		ReplayFromTime:      true,
		DeliverAt:           d.schedules,
		Temporary:           true,
		Dedup:               time.Duration(d.dedup.Load()),
		PublishObeysContext: true,
		MaxPayload:          maxPayload(d.publisher.maxPayload.Load()),
		Durability:          d.cfg.durability(),
	}
}

// maxPayload leaves room for headers, which the server counts against its limit.
func maxPayload(limit int64) int { return int(limit - min(limit/2, headerRoom)) }

// Close ends publishing; what was in flight is reported in doubt. It closes the connection if Open made it. It does not
// block on the server, and can be called more than once.
func (d *Driver) Close() error {
	d.release()
	return nil
}

func (d *Driver) doClose() {
	d.closed.Store(true)
	d.publisher.close()
	if d.owned {
		d.conn.Close()
	}
}

type counts struct {
	published, duplicates, refused, inDoubt, received, redelivered atomic.Uint64
}

// Stats counts since the driver was made.
type Stats struct {
	// Published is the number of messages that the server has accepted, Duplicates those of them that it had already.
	Published, Duplicates uint64
	// Refused is the number of messages that were not accepted, InDoubt those whose answer did not come.
	Refused, InDoubt uint64
	// Received is the number of deliveries, Redelivered those that were not the first of their message.
	Received, Redelivered uint64
}

// Stats is a snapshot; reading it does not slow the driver.
func (d *Driver) Stats() Stats {
	return Stats{
		Published: d.counts.published.Load(), Duplicates: d.counts.duplicates.Load(),
		Refused: d.counts.refused.Load(), InDoubt: d.counts.inDoubt.Load(),
		Received: d.counts.received.Load(), Redelivered: d.counts.redelivered.Load(),
	}
}

// Describe names the driver for consoles and telemetry; config is its Config with defaults filled in.
func (d *Driver) Describe() (kind, name string, config any) { return "natspubsub", d.cfg.Name, d.cfg }

// Metrics yields Stats by name.
func (d *Driver) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		st := d.Stats()
		_ = yield("published_total", float64(st.Published)) &&
			yield("duplicates_total", float64(st.Duplicates)) &&
			yield("refused_total", float64(st.Refused)) &&
			yield("in_doubt_total", float64(st.InDoubt)) &&
			yield("received_total", float64(st.Received)) &&
			yield("redelivered_total", float64(st.Redelivered))
	}
}
