package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// env is what one try of a test works with. Failures are collected, since it may be tried again.
type env struct {
	*testing.T
	h      Harness
	scale  time.Duration // by which times are longer than in the first try
	pulse  *pulse
	raw    pubsub.Driver // as New made it
	driver pubsub.Driver
	bus    *pubsub.Bus
	skip   string

	mu       sync.Mutex
	cleanups []func()
	failures []string
}

// try runs the test and what is registered with Cleanup.
func (e *env) try(tc test) {
	e.pulse = startPulse(e.h.Lease / 50)
	defer e.pulse.stop()
	var wg sync.WaitGroup
	wg.Go(func() { // which Fatal ends
		e.raw = e.h.New(e.T)
		e.driver = &timedDriver{e.raw, e.pulse}
		caps := e.driver.Capabilities()
		if caps.Driver == "" || caps.Durability == "" {
			e.Errorf("Capabilities has no Driver or Durability: %+v", caps)
		}
		e.bus = e.connect(e.driver)
		for _, n := range tc.needs {
			if !n.met(e.h, caps) {
				e.skip = n.missing
				return
			}
		}
		tc.run(e)
	})
	wg.Wait()
	for _, cleanup := range slices.Backward(e.cleanups) {
		cleanup()
	}
}

// Cleanup runs f after this try.
func (e *env) Cleanup(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cleanups = append(e.cleanups, f)
}

// Errorf notes a failure of this try.
func (e *env) Errorf(format string, args ...any) { e.fail(fmt.Sprintf(format, args...)) }

// Error is Errorf for one value.
func (e *env) Error(v any) { e.fail(fmt.Sprint(v)) }

// Fatalf is Errorf and ends the try. Handlers must not call it.
func (e *env) Fatalf(format string, args ...any) {
	e.fail(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// Fatal is Fatalf for one value.
func (e *env) Fatal(v any) {
	e.fail(fmt.Sprint(v))
	runtime.Goexit()
}

// fail notes text, and where the method that calls it was called.
func (e *env) fail(text string) {
	if _, file, line, ok := runtime.Caller(2); ok {
		text = fmt.Sprintf("%s:%d: %s", filepath.Base(file), line, text)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failures = append(e.failures, text)
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
	s.HandleTimeout, s.LaneDepth, s.BatchSize, s.BatchWait = 30*time.Second, 64, 100, 50*time.Millisecond
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
	return e.start(func(ctx context.Context) error { return c.Run(ctx, h) })
}

func (e *env) start(run func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{e: e, cancel: cancel, result: make(chan error, 1)}
	go func() { r.result <- run(ctx) }()
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
