package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// Harness says how to reach the driver under test.
type Harness struct {
	// New returns a driver on a broker, or a part of one, that no other test sees and that has no topics. The suite
	// closes it; what else there is to clean up, New leaves to t.Cleanup. Required.
	New func(t *testing.T) pubsub.Driver
	// Reopen returns another driver on the same broker or part as d, as another process would have. The suite closes
	// it. Nil: the tests that need a second client are skipped.
	Reopen func(t *testing.T, d pubsub.Driver) pubsub.Driver
	// Lease is the lease that the tests ask for; it should be short, and long beside a round trip. Default 2s.
	Lease time.Duration
	// Wait is how long a test waits for something that must happen. Default 30s.
	Wait time.Duration
	// Skip has the reason for every test that the broker cannot pass, under the name of the test.
	Skip map[string]string
}

type test struct {
	name    string
	ordered bool // needs Capabilities.Ordered
	replay  bool // needs Capabilities.ReplayFromStart
	second  bool // needs Harness.Reopen
	run     func(e *env)
}

var suite = []test{
	{name: "EveryGroupGetsEveryMessage", run: everyGroup},
	{name: "MembersShareMessages", run: membersShare},
	{name: "AckRemoves", run: ackRemoves},
	{name: "NackRedeliversWithCount", run: nackRedelivers},
	{name: "DelayIsHonoured", run: delayHonoured},
	{name: "AttemptLimitDeadLetters", run: attemptLimit},
	{name: "DeadLetterOnRequest", run: deadLetterOnRequest},
	{name: "FailedDeadLetterIsNotLost", run: failedDeadLetter},
	{name: "PanicIsNack", run: panicIsNack},
	{name: "EmptyPayload", run: emptyPayload},
	{name: "BinaryPayload", run: binaryPayload},
	{name: "UnicodeHeaders", run: unicodeHeaders},
	{name: "BadMessagesAreRefused", run: badMessages},
	{name: "LongPayloadIsRefused", run: longPayload},
	{name: "PublishInBulk", run: publishInBulk},
	{name: "ConcurrentPublish", run: concurrentPublish},
	{name: "StartAtEnd", run: startAtEnd},
	{name: "StartAtStart", replay: true, run: startAtStart},
	{name: "GroupOutlivesClient", second: true, run: groupOutlivesClient},
	{name: "OrderIsDeclared", run: orderIsDeclared},
	{name: "OrderPerKey", ordered: true, run: orderPerKey},
	{name: "OrderUnderFailures", ordered: true, run: orderUnderFailures},
	{name: "OrderAcrossClose", ordered: true, run: orderAcrossClose},
	{name: "OrderAcrossAbandon", ordered: true, run: orderAcrossAbandon},
	{name: "LostLeaseBeginsTheLaneAnew", ordered: true, run: laneAnew},
	{name: "LaneDepthBoundsALane", ordered: true, run: laneDepth},
	{name: "LeaseIsExtended", run: leaseExtended},
	{name: "AbandonedLeaseExpires", run: abandonedLease},
	{name: "SettlingTwiceIsHarmless", run: settleTwice},
	{name: "ReceiveObeysContext", run: receiveObeysContext},
	{name: "DrainFinishesHandlers", run: drainFinishes},
	{name: "DrainTimeoutRedelivers", run: drainTimeout},
	{name: "CloseIsIdempotent", run: closeIdempotent},
}

// Run runs the suite. Every test has a driver of its own; they run one after the other.
func Run(t *testing.T, h Harness) {
	if h.Lease == 0 {
		h.Lease = 2 * time.Second
	}
	if h.Wait == 0 {
		h.Wait = 30 * time.Second
	}
	known := make(map[string]bool)
	for _, tc := range suite {
		known[tc.name] = true
		t.Run(tc.name, func(t *testing.T) { h.run(t, tc) })
	}
	for name := range h.Skip {
		if !known[name] {
			t.Errorf("Harness.Skip names %q, which is no test", name)
		}
	}
}

func (h Harness) run(t *testing.T, tc test) {
	if reason, ok := h.Skip[tc.name]; ok {
		t.Skip("the harness says: " + reason)
	}
	e := &env{T: t, h: h, driver: h.New(t)}
	caps := e.driver.Capabilities()
	if caps.Driver == "" || caps.Durability == "" {
		t.Errorf("Capabilities has no Driver or Durability: %+v", caps)
	}
	e.bus = e.connect(e.driver)
	switch {
	case tc.ordered && !caps.Ordered:
		t.Skip("the driver declares no order")
	case tc.replay && !caps.ReplayFromStart:
		t.Skip("the driver declares no replay")
	case tc.second && h.Reopen == nil:
		t.Skip("the harness has no Reopen")
	}
	tc.run(e)
}

// env is what a test works with. Its methods fail the test.
type env struct {
	*testing.T
	h      Harness
	driver pubsub.Driver
	bus    *pubsub.Bus
}

func (e *env) connect(d pubsub.Driver) *pubsub.Bus {
	bus := pubsub.New(d)
	e.Cleanup(func() {
		if err := bus.Close(); err != nil {
			e.Errorf("closing the bus: %v", err)
		}
	})
	return bus
}

// soon is a context that ends when a test has waited long enough.
func (e *env) soon() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), e.h.Wait)
	e.Cleanup(cancel)
	return ctx
}

const topic = "orders"

// sub is a subscription of the group with short times.
func (e *env) sub(group string) pubsub.Subscription {
	return pubsub.Subscription{
		Topic: topic, Group: group, Lease: e.h.Lease, DrainTimeout: e.h.Wait,
		BackoffInitial: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
	}
}

// filled is sub as a driver gets it.
func (e *env) filled(group string) pubsub.Subscription {
	s := e.sub(group)
	s.Name, s.Start, s.Concurrency, s.MaxAttempts = topic+"/"+group, "end", 8, 10
	s.HandleTimeout, s.LaneDepth = 30*time.Second, 64
	return s
}

func (e *env) open(bus *pubsub.Bus, s pubsub.Subscription) *pubsub.Consumer {
	e.Helper()
	c, err := bus.Open(e.soon(), s)
	if err != nil {
		e.Fatalf("Open: %v", err)
	}
	return c
}

// receiver opens a member of the group that the test plays itself.
func (e *env) receiver(d pubsub.Driver, s pubsub.Subscription) pubsub.Receiver {
	e.Helper()
	r, err := d.Open(e.soon(), s)
	if err != nil {
		e.Fatalf("driver's Open: %v", err)
	}
	e.Cleanup(func() { _ = r.Close() })
	return r
}

// running is a consumer at work.
type running struct {
	e      *env
	cancel context.CancelFunc
	result chan error
	once   sync.Once
	err    error
}

// run starts c and stops it at the end of the test, if nothing else does.
func (e *env) run(c *pubsub.Consumer, h pubsub.Handler) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{e: e, cancel: cancel, result: make(chan error, 1)}
	go func() { r.result <- c.Run(ctx, h) }()
	e.Cleanup(func() { _ = r.stop() })
	return r
}

// consume opens and runs.
func (e *env) consume(s pubsub.Subscription, h pubsub.Handler) *running {
	e.Helper()
	return e.run(e.open(e.bus, s), h)
}

// stop drains and returns what Run returned.
func (r *running) stop() error {
	r.once.Do(func() {
		r.cancel()
		select {
		case r.err = <-r.result:
		case <-time.After(2 * r.e.h.Wait):
			r.err = errors.New("Run did not return")
			r.e.Error(r.err)
		}
	})
	return r.err
}

func (e *env) publish(msgs ...pubsub.Message) {
	e.Helper()
	if err := e.bus.Publish(e.soon(), msgs...); err != nil {
		e.Fatalf("Publish: %v", err)
	}
}

// numbered makes n messages with IDs that begin with prefix.
func numbered(prefix string, n int) []pubsub.Message {
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i] = pubsub.Message{ID: fmt.Sprintf("%s-%04d", prefix, i), Topic: topic, Payload: []byte(fmt.Sprint(i))}
	}
	return msgs
}

// inbox collects what handlers got.
type inbox struct {
	e  *env
	ch chan pubsub.Message
}

func (e *env) inbox() *inbox { return &inbox{e: e, ch: make(chan pubsub.Message, 100_000)} }

// ok is a handler that succeeds.
func (b *inbox) ok(_ context.Context, m pubsub.Message) error {
	b.ch <- m
	return nil
}

// next waits for one message.
func (b *inbox) next() pubsub.Message {
	b.e.Helper()
	select {
	case m := <-b.ch:
		return m
	case <-time.After(b.e.h.Wait):
		b.e.Fatal("no message came")
		panic("unreachable")
	}
}

// all waits until every one of msgs has come and returns how many times each did.
func (b *inbox) all(msgs []pubsub.Message) map[string]int {
	b.e.Helper()
	want := make(map[string]bool, len(msgs))
	for _, m := range msgs {
		want[m.ID] = true
	}
	got := make(map[string]int)
	for len(got) < len(want) {
		m := b.next()
		if !want[m.ID] {
			b.e.Fatalf("message %q was not published to this group", m.ID)
		}
		got[m.ID]++
	}
	return got
}

// once is all, and fails if one came twice.
func (b *inbox) once(msgs []pubsub.Message) {
	b.e.Helper()
	for id, n := range b.all(msgs) {
		if n != 1 {
			b.e.Errorf("message %s came %d times", id, n)
		}
	}
}

// quiet fails if the group has a message for a new member within d.
func (e *env) quiet(s pubsub.Subscription, d time.Duration) {
	e.Helper()
	r := e.receiver(e.driver, s)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	got, err := r.Receive(ctx, 10)
	if len(got) > 0 {
		e.Fatalf("message %s came again (attempt %d)", got[0].ID, got[0].Attempt)
	}
	if ctx.Err() == nil {
		e.Fatalf("Receive: %v", err)
	}
	if err := r.Close(); err != nil {
		e.Errorf("closing the receiver: %v", err)
	}
}
