package pubsub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Consumer takes the messages of one Subscription as a member of its group. Bus.Open makes it, Run does the work, Close
// (or Bus.Close) ends it. All methods are safe for concurrent use.
type Consumer struct {
	bus      *Bus
	receiver Receiver
	local    bool // backoff happens here, leased, and not at the broker
	sub      atomic.Pointer[Subscription]
	settler  *settler
	inline   bool // the driver's Settle does not block: workers call it themselves
	clock    clock
	lag      *lagWatch

	stopping context.Context // done once Close is called
	stop     context.CancelFunc
	stopped  chan struct{} // closed when Run has returned, or will never begin

	mu         sync.Mutex
	queue      queue
	work       *sync.Cond // for idle workers: there is something to do
	quiet      *sync.Cond // for the drain: the last Receive has returned
	workers    int
	busy       int  // workers that handle something
	idle       int  // workers that wait for work and have not been woken
	stirring   bool // a worker has been woken or started and has not looked around yet
	receiving  bool // a worker is in Receive
	halted     bool // Receive is not called (any more)
	draining   bool
	drained    chan struct{} // closed when draining and nothing runs
	gathering  *time.Timer   // runs while a batch waits for more messages
	batchDue   bool          // the batch has waited long enough
	started    bool
	closed     bool
	closeErr   error
	closing    sync.Once
	invoke     func(ctx context.Context, items []*item) error // the handler
	batched    bool                                           // invoke takes more than one
	base       context.Context                                // parent of the handlers' contexts
	intake     context.Context                                // of Receive
	intakeErr  error
	haltIntake context.CancelFunc // ends intake
	failures   failures
	counts     Stats
	verdicts   []settlement // given, and not yet with the settler
	backlogged bool         // Receive is not called since too many verdicts are not accepted
	pace       pace
}

// Stats are counts since Open and levels of now.
type Stats struct {
	// Received counts deliveries, Redelivered those among them that were not the first of their message.
	Received, Redelivered int64
	// Handled counts messages whose handler returned nil, Failed attempts that ended otherwise. A batch counts each of
	// its messages. Rejected counts calls that a policy round the handler refused, which are no attempts.
	Handled, Failed, Rejected int64
	// Skipped counts messages redriven for another group, acknowledged unhandled.
	Skipped int64
	// Dropped counts messages of a Temporary subscription that would have become dead letters.
	Dropped int64
	// DeadLettered counts messages published to the dead-letter topic, DeadLetterFailed publishes that failed; their
	// messages are tried again.
	DeadLettered, DeadLetterFailed int64
	// LeasesLost counts deliveries whose lease ran out here, handled or not: the broker delivers them again.
	LeasesLost int64
	// SettleFailed counts calls to the broker with verdicts that failed and were repeated.
	SettleFailed int64
	// InFlight is the number of handlers that run, Waiting that of messages in a backoff or behind one, and Held that of
	// all messages under lease.
	InFlight, Waiting, Held int
}

func newConsumer(b *Bus, s Subscription, r Receiver, caps Capabilities) *Consumer {
	c := &Consumer{
		bus: b, receiver: r,
		local:   s.Ordered || !caps.DelayedNack,
		inline:  caps.SettleDoesNotBlock,
		clock:   newClock(),
		lag:     newLagWatch(r),
		stopped: make(chan struct{}),
		drained: make(chan struct{}),
		halted:  true, // until Run
	}
	c.stopping, c.stop = context.WithCancel(context.Background())
	c.sub.Store(&s)
	c.work, c.quiet = sync.NewCond(&c.mu), sync.NewCond(&c.mu)
	c.settler = newSettler(r, s.Lease, c.clock, c.settled)
	c.queue.init(&s)
	return c
}

// Close asks Run to drain and waits for it, then leaves the group; unsettled messages go back to the broker. Without
// Run it only leaves. It returns the receiver's error; calling it again returns the same. Do not call it from a
// handler, which it would wait for.
func (c *Consumer) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.stop()
		if !c.started {
			close(c.stopped)
		}
	}
	c.mu.Unlock()
	<-c.stopped
	c.leave()
	return c.closeErr
}

// leave closes the receiver, once.
func (c *Consumer) leave() {
	c.closing.Do(func() {
		c.lag.end()
		c.closeErr = c.receiver.Close()
		c.bus.forget(c)
	})
}

// Config returns the subscription with defaults filled in.
func (c *Consumer) Config() Subscription { return *c.sub.Load() }

// Reconfigure changes Concurrency, MaxAttempts, the backoff, HandleTimeout, DrainTimeout, BatchSize and BatchWait. The messages under way
// stay; a handler that runs keeps its timeout. A change of any other field is refused with an error that names it.
func (c *Consumer) Reconfigure(s Subscription) error {
	if err := s.Validate(); err != nil {
		return err
	}
	s = s.withDefaults()
	old := c.Config()
	var errs []error
	fixed := func(field string, was, is any) {
		if was != is {
			errs = append(errs, fmt.Errorf("pubsub: consumer %q: %s is fixed: it is %v and cannot become %v", old.Name, field, was, is))
		}
	}
	fixed("Name", old.Name, s.Name)
	fixed("Topic", old.Topic, s.Topic)
	fixed("Group", old.Group, s.Group)
	fixed("Ordered", old.Ordered, s.Ordered)
	fixed("Start", old.Start, s.Start)
	fixed("Temporary", old.Temporary, s.Temporary)
	fixed("HoldKey", old.HoldKey, s.HoldKey)
	fixed("Lease", old.Lease, s.Lease)
	fixed("LaneDepth", old.LaneDepth, s.LaneDepth)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sub.Store(&s)
	c.wakeAll() // so that workers beyond the new Concurrency end
	c.stir()
	return nil
}

// Stats returns a snapshot.
func (c *Consumer) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.counts
	s.LeasesLost = int64(c.queue.lost) + c.settler.lost.Load()
	s.SettleFailed = c.settler.failed.Load()
	s.InFlight = c.busy
	for _, l := range c.queue.lanes {
		s.Waiting += l.parked
	}
	for it := range c.queue.all() {
		if !it.lost {
			s.Held++
		}
	}
	return s
}

// Describe names the consumer for the console and telemetry.
func (c *Consumer) Describe() (kind, name string, config any) {
	s := c.Config()
	return "pubsub.consumer", s.Name, s
}

// Metrics yields Stats under the names used in telemetry, and where the driver can tell, Lag as "lag" and "unsettled".
// It does not wait for the broker, which is asked every three seconds while somebody reads: the lag is NaN at first, and
// when the broker has not answered for fifteen seconds.
func (c *Consumer) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := c.Stats()
		if c.lag.lagger != nil {
			waiting, unsettled := c.lag.look()
			if !yield("lag", waiting) || !yield("unsettled", unsettled) {
				return
			}
		}
		_ = yield("received_total", float64(s.Received)) &&
			yield("redelivered_total", float64(s.Redelivered)) &&
			yield("handled_total", float64(s.Handled)) &&
			yield("failed_total", float64(s.Failed)) &&
			yield("rejected_total", float64(s.Rejected)) &&
			yield("skipped_total", float64(s.Skipped)) &&
			yield("dropped_total", float64(s.Dropped)) &&
			yield("dead_lettered_total", float64(s.DeadLettered)) &&
			yield("dead_letter_failed_total", float64(s.DeadLetterFailed)) &&
			yield("leases_lost_total", float64(s.LeasesLost)) &&
			yield("settle_failed_total", float64(s.SettleFailed)) &&
			yield("in_flight", float64(s.InFlight)) &&
			yield("waiting", float64(s.Waiting)) &&
			yield("held", float64(s.Held))
	}
}

// settled notes the leases that the broker has extended, and that the backlog of verdicts has become shorter.
func (c *Consumer) settled(batch []settlement, until time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range batch {
		if batch[i].Kind == Extend {
			batch[i].it.leaseUntil = until
		}
	}
	if c.backlogged {
		c.backlogged = false
		c.stir()
	}
}

// graceToHonour is how long cancelled handlers get to return after a drain has used up its grace.
const graceToHonour = time.Second
