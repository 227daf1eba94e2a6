package outbox

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// Relay moves committed messages from a store to a publisher. Any number of relays, in any number of processes, share the work
// of one store. It is safe for concurrent use. Its zero value is not usable; call NewRelay, then Run.
type Relay struct {
	queue     Queue
	publisher pubsub.Publisher
	onFailure func(Failure)
	onError   func(error)

	config  atomic.Pointer[RelayConfig]
	wake    chan struct{}
	running atomic.Bool

	published, failed, parked, fenced atomic.Uint64
	buckets                           atomic.Int64
	backlog                           atomic.Pointer[Backlog]
}

// RelayOption sets how a Relay behaves.
type RelayOption func(*Relay)

// OnFailure calls fn for every message that the publisher did not take, parked ones among them, once that is recorded. It is
// called by Run, which waits for it. A nil fn panics in NewRelay.
func OnFailure(fn func(Failure)) RelayOption { return func(r *Relay) { r.onFailure = fn } }

// OnError calls fn when the store could not be reached or a lease was lost; Run goes on after a pause. It is called by Run,
// which waits for it. A nil fn panics in NewRelay.
func OnError(fn func(error)) RelayOption { return func(r *Relay) { r.onError = fn } }

// NewRelay returns a Relay from a store such as *sqloutbox.Store to a publisher such as *pubsub.Bus. It panics on a nil argument
// and on a config that Validate rejects.
func NewRelay(queue Queue, publisher pubsub.Publisher, cfg RelayConfig, opts ...RelayOption) *Relay {
	r := &Relay{queue: queue, publisher: publisher, wake: make(chan struct{}, 1), onFailure: func(Failure) {}, onError: func(error) {}}
	for _, opt := range opts {
		opt(r)
	}
	if queue == nil || publisher == nil || r.onFailure == nil || r.onError == nil {
		panic("outbox: NewRelay: the queue, the publisher or a hook is nil")
	}
	if err := r.Reconfigure(cfg); err != nil {
		panic(err)
	}
	return r
}

// Run publishes until ctx is done. Then it finishes the messages already handed to the publisher, settles them, gives back its
// leases and returns nil; that takes at most PublishTimeout and, where the store does not answer, two Leases. Trouble with store or publisher is waited out and reported by the
// hooks; the only error is that Run is already running.
func (r *Relay) Run(ctx context.Context) error {
	if !r.running.CompareAndSwap(false, true) {
		return fmt.Errorf("outbox: relay %q: Run is already running", r.Config().Name)
	}
	defer r.running.Store(false)
	w := &worker{Relay: r, leases: Leases{Owner: newID()}, counted: time.Now(), pause: pollMin, penalty: pollMin, width: r.Config().Batch}
	defer w.leave(ctx)
	for ctx.Err() == nil {
		w.rest(ctx, w.round(ctx))
	}
	return nil
}

// Notify wakes Run if it is waiting for messages. It never blocks.
func (r *Relay) Notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Reconfigure replaces the configuration whole, from the next batch on; leases and counts survive. It returns Validate's error
// and then changes nothing.
func (r *Relay) Reconfigure(cfg RelayConfig) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	r.config.Store(&cfg)
	return nil
}

// Config returns the configuration with defaults filled in.
func (r *Relay) Config() RelayConfig { return *r.config.Load() }

// RelayStats is what a Relay has done, and what the store held when it last looked.
type RelayStats struct {
	// Published counts messages taken by the publisher, repetitions included.
	Published uint64
	// Failed counts messages not taken, each time.
	Failed uint64
	// GivenUp counts messages that this relay has parked.
	GivenUp uint64
	// Fenced counts batches of which a part was refused because a lease had been lost.
	Fenced uint64
	// Buckets is how many of the 64 buckets are leased to this relay.
	Buckets int
	// Backlog is what waits in the whole store. It is read every third of Lease, while Run runs, and at its first idle moment.
	Backlog
}

// Stats is a snapshot; it never blocks and does not ask the store.
func (r *Relay) Stats() RelayStats {
	s := RelayStats{
		Published: r.published.Load(), Failed: r.failed.Load(), GivenUp: r.parked.Load(), Fenced: r.fenced.Load(),
		Buckets: int(r.buckets.Load()),
	}
	if b := r.backlog.Load(); b != nil {
		s.Backlog = *b
	}
	return s
}

// Describe tells a console what this is.
func (r *Relay) Describe() (kind, name string, config any) {
	c := r.Config()
	return "relay", c.Name, c
}

// Metrics yields the statistics under their telemetry names.
func (r *Relay) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := r.Stats()
		_ = yield("published_total", float64(s.Published)) &&
			yield("failed_total", float64(s.Failed)) &&
			yield("given_up_total", float64(s.GivenUp)) &&
			yield("fenced_total", float64(s.Fenced)) &&
			yield("buckets", float64(s.Buckets)) &&
			yield("pending", float64(s.Pending)) &&
			yield("parked", float64(s.Parked)) &&
			yield("oldest_age_seconds", s.OldestAge.Seconds())
	}
}

// fail reports trouble that Run outlives.
func (r *Relay) fail(doing string, err error) {
	r.onError(fmt.Errorf("outbox: relay %q: %s: %w", r.Config().Name, doing, err))
}

// renewEvery leaves two more tries before a lease runs out; one that lacks buckets asks as often as it polls.
func renewEvery(cfg RelayConfig, l Leases) time.Duration {
	if l.Count() < l.Share || l.Share == 0 {
		return min(cfg.PollMax, cfg.Lease/3)
	}
	return cfg.Lease / 3
}
