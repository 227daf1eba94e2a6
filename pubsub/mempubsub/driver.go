package mempubsub

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/backstay-go/backstay/pubsub"
)

// Driver is a pubsub.Driver on a broker in this process. Make it with New, and further ones on the same broker with
// Connect. It is safe for concurrent use and starts no goroutine.
type Driver struct {
	broker *broker
	done   chan struct{} // closed by Close

	mu        sync.Mutex
	closed    bool
	receivers map[*receiver]struct{}
}

// broker is what all drivers of it share.
type broker struct {
	cfg Config

	mu     sync.Mutex
	topics map[string]*topic
}

var _ pubsub.Driver = (*Driver)(nil)

// New makes a broker and a driver on it. It panics on a Config that Validate rejects.
func New(cfg Config) *Driver {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	b := &broker{cfg: cfg.withDefaults(), topics: make(map[string]*topic)}
	return b.connect()
}

func (b *broker) connect() *Driver {
	return &Driver{broker: b, done: make(chan struct{}), receivers: make(map[*receiver]struct{})}
}

// Connect makes another driver on the same broker, as another process would be with a broker on the network. Each is
// closed by itself; the broker and its messages last as long as one is referred to.
func (d *Driver) Connect() *Driver { return d.broker.connect() }

// Publish puts messages into the queue of every group of their topic. It waits while one of them is full, until ctx is
// done or the driver is closed; what could not be queued then is in the result and in no queue.
func (d *Driver) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	for i := range msgs {
		t := d.broker.topic(msgs[i].Topic)
		if err := t.publish(ctx, d.done, &msgs[i]); err != nil {
			errs := make([]error, len(msgs))
			for j := i; j < len(msgs); j++ { // later ones must not overtake
				errs[j] = err
			}
			return errs
		}
	}
	return nil
}

// Open joins the group, which it makes if need be.
func (d *Driver) Open(_ context.Context, s pubsub.Subscription) (pubsub.Receiver, error) {
	d.broker.topic(pubsub.DeadLetterTopic(s.Topic, s.Group)).keepUnread()
	t := d.broker.topic(s.Topic)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, pubsub.ErrClosed
	}
	r := &receiver{driver: d, topic: t, sub: s, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if err := t.join(r); err != nil {
		return nil, err
	}
	d.receivers[r] = struct{}{}
	return r, nil
}

// Capabilities declares order, delayed redelivery and replay of what is retained, and no durability.
func (d *Driver) Capabilities() pubsub.Capabilities {
	return pubsub.Capabilities{
		Driver: "mem", Ordered: true, DelayedNack: true, ReplayFromStart: true,
		Durability: "held in the memory of this process",
	}
}

// Close closes the receivers and ends a Publish that waits. The broker and its groups stay for other drivers.
func (d *Driver) Close() error {
	d.mu.Lock()
	if !d.closed {
		d.closed = true
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

// Config returns the broker's Config with defaults filled in.
func (d *Driver) Config() Config { return d.broker.cfg }

// Stats are counts and levels of a broker.
type Stats struct {
	// Published counts accepted messages, Dropped those among them that no group and no retention took.
	Published, Dropped int64
	// Redelivered counts deliveries after the first of a message to a group, LeasesExpired leases that ran out.
	Redelivered, LeasesExpired int64
	// Topics, Groups and Receivers are how many there are.
	Topics, Groups, Receivers int
	// Pending is the number of messages that groups have not settled, Unread that of dead letters without a group.
	Pending, Unread int
}

// Stats returns a snapshot over all drivers of the broker.
func (d *Driver) Stats() Stats {
	d.broker.mu.Lock()
	defer d.broker.mu.Unlock()
	var s Stats
	for _, t := range d.broker.topics {
		s.Topics++
		t.addTo(&s)
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
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[name]
	if t == nil {
		t = &topic{name: name, cfg: &b.cfg, groups: make(map[string]*group)}
		b.topics[name] = t
	}
	return t
}

func (d *Driver) forget(r *receiver) {
	d.mu.Lock()
	delete(d.receivers, r)
	d.mu.Unlock()
}

// errModes says that a group is ordered for all its members or for none.
func errModes(s pubsub.Subscription) error {
	return fmt.Errorf("mempubsub: group %q of topic %q exists with Ordered %v: remove it to change that", s.Group, s.Topic, !s.Ordered)
}
