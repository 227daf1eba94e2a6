package rabbitpubsub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/backstay-go/backstay/pubsub"
)

// closeTimeout bounds the orderly end of a connection or channel.
const closeTimeout = 5 * time.Second

// Driver is a pubsub.Driver on RabbitMQ. Open makes one; the Bus that it is given to closes it. It has a connection to
// publish and, once there is a receiver, another to consume, so that a broker that takes no messages still delivers
// them. Its methods are safe for concurrent use.
type Driver struct {
	cfg       Config
	dialer    dialer
	publisher *publisher
	counts    counts
	exchanges sync.Map // topic → name
	lanes     []string // their routing keys
	closed    atomic.Bool
	release   func()

	mu        sync.Mutex
	consuming *link
}

var _ pubsub.Driver = (*Driver)(nil)

// Option gives a Driver behaviour.
type Option func(*Driver)

// WithTLS sets the certificates and checks of amqps connections. Without it the URL says them: the query parameters
// cacertfile, certfile, keyfile and server_name_indication. The driver keeps a copy.
func WithTLS(cfg *tls.Config) Option {
	cfg = cfg.Clone()
	return func(d *Driver) { d.dialer.tls = cfg }
}

// WithAuth sets how to log in, instead of with the user and password of the URL.
func WithAuth(mechanisms ...amqp.Authentication) Option {
	return func(d *Driver) { d.dialer.sasl = mechanisms }
}

// WithDialer sets how to reach a server, for instance through a proxy. Default: a net.Dialer.
func WithDialer(dial func(ctx context.Context, network, addr string) (net.Conn, error)) Option {
	if dial == nil {
		panic("rabbitpubsub: WithDialer(nil)")
	}
	return func(d *Driver) { d.dialer.dial = dial }
}

// Open connects to the server at url, or to one of several separated by commas, and returns a driver, which connects
// again for as long as it takes whenever the connection is lost. A URL is amqp://user:password@host:port/vhost, or
// amqps. It fails when cfg is invalid, when no server answers before ctx is done, and when the server is older than 3.10.
func Open(ctx context.Context, url string, cfg Config, opts ...Option) (*Driver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	urls, err := splitURLs(url)
	if err != nil {
		return nil, fmt.Errorf("rabbitpubsub: Open: %w", err)
	}
	d := &Driver{cfg: cfg.withDefaults()}
	d.dialer = dialer{urls: urls, heartbeat: d.cfg.Heartbeat, name: d.cfg.Name, dial: (&net.Dialer{}).DialContext}
	for _, opt := range opts {
		opt(d)
	}
	for lane := range d.cfg.Lanes {
		d.lanes = append(d.lanes, strconv.Itoa(lane))
	}
	l, err := newLink(ctx, &d.dialer, &d.counts.reconnects)
	if err != nil {
		return nil, d.wrap("connect", err)
	}
	d.publisher = newPublisher(d, l)
	d.release = sync.OnceFunc(d.doClose)
	return d, nil
}

func (d *Driver) wrap(what string, err error) error {
	return fmt.Errorf("rabbitpubsub %q: %s: %w", d.cfg.Name, what, err)
}

// route is where a message is sent.
func (d *Driver) route(m *pubsub.Message) (exchange, key string) {
	name, ok := d.exchanges.Load(m.Topic)
	if !ok {
		name, _ = d.exchanges.LoadOrStore(m.Topic, d.cfg.exchange(m.Topic))
	}
	return name.(string), d.lanes[d.cfg.lane(m.Key, m.ID)]
}

// Open makes the subscription stand: its queues exist and are bound when it returns. The first group that reads a
// dead-letter topic gets the letters that were kept for it. Messages are taken once Receive is called.
func (d *Driver) Open(ctx context.Context, s pubsub.Subscription) (pubsub.Receiver, error) {
	if _, timed := s.StartTime(); timed || s.Start == "start" {
		return nil, &pubsub.CapabilityError{Driver: driverName, Capability: "ReplayFromStart"}
	}
	if d.closed.Load() {
		return nil, pubsub.ErrClosed
	}
	l, err := d.consumingLink(ctx)
	if err != nil {
		return nil, d.wrap("connect", err)
	}
	sess, err := l.get(ctx)
	if err == nil {
		err = d.subscribe(ctx, sess, s)
	}
	if err != nil {
		return nil, d.wrap("topic "+s.Topic+": group "+s.Group, err)
	}
	return newReceiver(d, l, sess, s), nil
}

// consumingLink is the connection of the receivers.
func (d *Driver) consumingLink(ctx context.Context) (*link, error) {
	d.mu.Lock()
	l := d.consuming
	d.mu.Unlock()
	if l != nil {
		return l, nil
	}
	l, err := newLink(ctx, &d.dialer, &d.counts.reconnects)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	other, closed := d.consuming, d.closed.Load()
	if other == nil && !closed {
		d.consuming = l
	}
	d.mu.Unlock()
	switch {
	case closed:
		l.close()
		return nil, pubsub.ErrClosed
	case other != nil: // somebody was quicker
		l.close()
		return other, nil
	}
	return l, nil
}

const driverName = "rabbitmq"

// Capabilities says what the driver can do.
func (d *Driver) Capabilities() pubsub.Capabilities {
	return pubsub.Capabilities{
		Driver:              driverName,
		Ordered:             true,
		Durable:             true,
		Temporary:           true,
		PublishObeysContext: true,
		SettleDoesNotBlock:  true,
		MaxPayload:          d.cfg.MaxPayload,
		Durability:          "in the fsynced log of a majority of the replicas of each group's queue",
	}
}

// Close ends publishing; what was in flight is reported in doubt. It closes the connections, which takes five seconds at
// most, and can be called more than once.
func (d *Driver) Close() error {
	d.release()
	return nil
}

func (d *Driver) doClose() {
	d.mu.Lock()
	d.closed.Store(true)
	l := d.consuming
	d.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(d.publisher.link.close)
	if l != nil {
		wg.Go(l.close)
	}
	wg.Wait()
	d.publisher.close()
}

type counts struct {
	published, refused, inDoubt, received, redelivered, leasesLost, reconnects atomic.Uint64
}

// Stats counts since the driver was made.
type Stats struct {
	// Published is the number of messages that the broker has confirmed, Refused of those that were not accepted, InDoubt
	// of those whose answer did not come, or that a queue has rejected.
	Published, Refused, InDoubt uint64
	// Received is the number of deliveries, Redelivered those that were not the first of their message.
	Received, Redelivered uint64
	// LeasesLost is the number of deliveries that were given back to the broker since nobody extended their lease.
	LeasesLost uint64
	// Reconnects is how often a lost connection was made again.
	Reconnects uint64
}

// Stats is a snapshot; reading it does not slow the driver.
func (d *Driver) Stats() Stats {
	return Stats{
		Published: d.counts.published.Load(), Refused: d.counts.refused.Load(), InDoubt: d.counts.inDoubt.Load(),
		Received: d.counts.received.Load(), Redelivered: d.counts.redelivered.Load(),
		LeasesLost: d.counts.leasesLost.Load(), Reconnects: d.counts.reconnects.Load(),
	}
}

// Describe names the driver for consoles and telemetry; config is its Config with defaults filled in.
func (d *Driver) Describe() (kind, name string, config any) { return "rabbitpubsub", d.cfg.Name, d.cfg }

// Metrics yields Stats by name.
func (d *Driver) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		st := d.Stats()
		_ = yield("published_total", float64(st.Published)) &&
			yield("refused_total", float64(st.Refused)) &&
			yield("in_doubt_total", float64(st.InDoubt)) &&
			yield("received_total", float64(st.Received)) &&
			yield("redelivered_total", float64(st.Redelivered)) &&
			yield("leases_lost_total", float64(st.LeasesLost)) &&
			yield("reconnects_total", float64(st.Reconnects))
	}
}

var errLost = errors.New("the connection was lost")
