package mempubsub

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// Driver is a pubsub.Driver on a broker in this process. Make it with New, and further ones on the same broker with
// Connect. It is safe for concurrent use and starts no goroutine, but a context that is not of package context has one of that
// package wait for it from a Receive that waited until the receiver is closed or gets another.
type Driver struct {
	broker *broker
	done   chan struct{} // closed by Close
	closed atomic.Bool   // the same for Publish, which would take longer to ask the channel

	mu        sync.Mutex
	receivers map[*receiver]struct{}
}

// broker is what all drivers of it share.
type broker struct {
	cfg  Config
	base time.Time // when it was made

	topics sync.Map              // name to *topic
	latest atomic.Pointer[topic] // that somebody asked for: most ask for the same again, and a map is slow when it is cold
}

var _ pubsub.Driver = (*Driver)(nil)

// New makes a broker and a driver on it. It panics on a Config that Validate rejects.
func New(cfg Config) *Driver {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	b := &broker{cfg: cfg.withDefaults(), base: time.Now()}
	return b.connect()
}

// now is the age of the broker, by the monotonic clock.
func (b *broker) now() time.Duration { return time.Since(b.base) }

// wall places t on the same scale by the wall clock.
func (b *broker) wall(t time.Time) time.Duration { return t.Round(0).Sub(b.base.Round(0)) }

func (b *broker) connect() *Driver {
	return &Driver{broker: b, done: make(chan struct{}), receivers: make(map[*receiver]struct{})}
}

// Connect makes another driver on the same broker, as another process would be with a broker on the network. Each is
// closed by itself; the broker and its messages last as long as one is referred to.
func (d *Driver) Connect() *Driver { return d.broker.connect() }

// Publish puts messages into the queue of every group of their topic. While one of them is full it waits, until ctx is
// done or the driver is closed, or fails at once, as Config.WhenFull says. What could not be queued is in the result and
// in no queue; so are the messages that come after it in the call, which must not overtake it.
func (d *Driver) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	for begin := 0; begin < len(msgs); {
		end := begin + 1
		for end < len(msgs) && msgs[end].Topic == msgs[begin].Topic {
			end++
		}
		n, err := d.broker.topic(msgs[begin].Topic).publish(ctx, d, msgs[begin:end], len(msgs) > 1)
		if err != nil {
			errs := make([]error, len(msgs))
			for i := begin + n; i < len(msgs); i++ {
				errs[i] = err
			}
			return errs
		}
		begin = end
	}
	return nil
}

// Open joins the group, which it makes if need be. It refuses a member that is not as Ordered and Temporary as the group.
func (d *Driver) Open(_ context.Context, s pubsub.Subscription) (pubsub.Receiver, error) {
	if !s.Temporary {
		d.broker.topic(pubsub.DeadLetterTopic(s.Topic, s.Group)).keepUnread()
	}
	t := d.broker.topic(s.Topic)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return nil, pubsub.ErrClosed
	}
	r := &receiver{driver: d, topic: t, sub: s, wake: make(chan struct{}, 1)}
	if err := t.join(r); err != nil {
		return nil, err
	}
	d.receivers[r] = struct{}{}
	return r, nil
}

// Capabilities declares all but durability; Dedup is Config.DedupWindow.
func (d *Driver) Capabilities() pubsub.Capabilities {
	return pubsub.Capabilities{
		Driver: "mem", Ordered: true, DelayedNack: true, ReplayFromStart: true, ReplayFromTime: true, DeliverAt: true,
		Temporary: true, Dedup: d.broker.cfg.DedupWindow, PublishObeysContext: true,
		PublishForgetsContext: true, SettleDoesNotBlock: true, Fixed: true,
		Durability: "held in the memory of this process",
	}
}

// Close closes the receivers and ends a Publish that waits. The broker and its groups stay for other drivers.
func (d *Driver) Close() error {
	d.mu.Lock()
	if !d.closed.Swap(true) {
		close(d.done)
	}
	receivers := make([]*receiver, 0, len(d.receivers))
	for r := range d.receivers {
		receivers = append(receivers, r)
	}
	d.mu.Unlock()
	for _, r := range receivers {
		_ = r.Close()
	}
	return nil
}

// RemoveGroup forgets a group that nobody will come back for, with its unsettled messages, so that it no longer makes
// publishers wait. A group with open receivers is an error; one that does not exist is not.
func (d *Driver) RemoveGroup(topic, group string) error {
	return d.broker.topic(topic).remove(group)
}

// Responders counts the receivers of the group that are open, of all drivers of the broker. With it a caller of package
// requestreply learns at once that nobody would answer.
func (d *Driver) Responders(_ context.Context, topic, group string) (int, error) {
	return d.broker.topic(topic).open(group), nil
}

// Config returns the broker's Config with defaults filled in.
func (d *Driver) Config() Config { return d.broker.cfg }

// Stats are counts and levels of a broker.
type Stats struct {
	// Published counts accepted messages without duplicates, Dropped those among them that no group and no retention
	// took, Duplicates the messages whose DedupID was known.
	Published, Dropped, Duplicates int64
	// Redelivered counts deliveries after the first of a message to a group, LeasesExpired leases that ran out.
	Redelivered, LeasesExpired int64
	// Topics, Groups and Receivers are how many there are.
	Topics, Groups, Receivers int
	// Pending is the number of messages that groups have not settled, delayed ones included, Unread that of dead
	// letters without a group.
	Pending, Unread int
}

// Stats returns a snapshot over all drivers of the broker.
func (d *Driver) Stats() Stats {
	var s Stats
	for _, t := range d.broker.topics.Range {
		s.Topics++
		t.(*topic).addTo(&s)
	}
	return s
}

// Describe names the broker for the console and telemetry.
func (d *Driver) Describe() (kind, name string, config any) {
	return "pubsub.mem", d.broker.cfg.Name, d.broker.cfg
}

// Metrics yields Stats under the names used in telemetry.
func (d *Driver) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := d.Stats()
		_ = yield("published_total", float64(s.Published)) &&
			yield("dropped_total", float64(s.Dropped)) &&
			yield("duplicates_total", float64(s.Duplicates)) &&
			yield("redelivered_total", float64(s.Redelivered)) &&
			yield("leases_expired_total", float64(s.LeasesExpired)) &&
			yield("topics", float64(s.Topics)) &&
			yield("groups", float64(s.Groups)) &&
			yield("receivers", float64(s.Receivers)) &&
			yield("pending", float64(s.Pending)) &&
			yield("unread", float64(s.Unread))
	}
}

func (b *broker) topic(name string) *topic {
	if t := b.latest.Load(); t != nil && t.name == name {
		return t
	}
	found, ok := b.topics.Load(name)
	if !ok {
		found, _ = b.topics.LoadOrStore(name, newTopic(b, name))
	}
	t := found.(*topic)
	b.latest.Store(t)
	return t
}

func (d *Driver) forget(r *receiver) {
	d.mu.Lock()
	delete(d.receivers, r)
	d.mu.Unlock()
}
