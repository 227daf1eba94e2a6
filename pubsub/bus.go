package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Bus publishes to and consumes from one broker. Make it with New. It is safe for concurrent use.
type Bus struct {
	driver Driver
	hooks  hooks

	mu        sync.Mutex
	closed    bool
	consumers map[*Consumer]struct{}
}

type hooks struct {
	deadLetter func(DeadLettered)
	retry      func(Retried)
}

// Option gives a Bus behaviour.
type Option func(*Bus)

// DeadLettered describes a message that has gone to its dead-letter topic.
type DeadLettered struct {
	// Consumer is the Name of the subscription.
	Consumer string
	// Message is the dead letter as published, with its headers.
	Message Message
	// Attempts is the number of attempts made.
	Attempts int
	// Err is the last failure, nil if this consumer has seen none: the message used up its attempts elsewhere.
	Err error
}

// Retried describes a message that failed and will be tried again, or a dead letter that could not be published.
type Retried struct {
	// Consumer is the Name of the subscription.
	Consumer string
	// Message is the message as the handler saw it; its Attempt is the one that failed.
	Message Message
	// Delay is the time until the next attempt, at the earliest.
	Delay time.Duration
	// Err is the failure.
	Err error
}

// OnDeadLetter calls fn after a message has been published to a dead-letter topic. It runs on the goroutine of the
// handler, outside locks, and takes up its slot until it returns.
func OnDeadLetter(fn func(DeadLettered)) Option {
	if fn == nil {
		panic("pubsub: OnDeadLetter(nil)")
	}
	return func(b *Bus) { b.hooks.deadLetter = fn }
}

// OnRetry calls fn after a failed attempt that is not the last. It runs on the goroutine of the handler, outside locks,
// and takes up its slot until it returns.
func OnRetry(fn func(Retried)) Option {
	if fn == nil {
		panic("pubsub: OnRetry(nil)")
	}
	return func(b *Bus) { b.hooks.retry = fn }
}

// New makes a Bus that owns the driver d: Bus.Close closes it. It panics on a nil driver.
func New(d Driver, opts ...Option) *Bus {
	if d == nil {
		panic("pubsub: New(nil)")
	}
	b := &Bus{
		driver:    d,
		hooks:     hooks{deadLetter: func(DeadLettered) {}, retry: func(Retried) {}},
		consumers: make(map[*Consumer]struct{}),
	}
	for _, opt := range opts {
		opt(b)
	}
	return b
}

// Publish sends messages and returns nil when the broker has accepted all of them, as durably as
// Capabilities.Durability says. Empty IDs and zero times are filled in, in copies. It blocks until the broker answers
// or ctx is done; a full in-memory queue makes it wait too.
//
// Every error is a *PublishError that says which messages failed and whether they are in doubt. A message that cannot be
// published as it is (a bad topic or header, a payload that is too long) is refused before anything is sent, and the
// failure of such a message has Permanent() true. Messages of one call keep their order within a key.
func (b *Bus) Publish(ctx context.Context, msgs ...Message) error {
	if len(msgs) == 0 {
		return nil
	}
	out := make([]Message, len(msgs))
	now := time.Now()
	for i, m := range msgs {
		if m.ID == "" {
			m.ID = newID()
		}
		if m.Time.IsZero() {
			m.Time = now
		}
		m.Attempt = 0
		out[i] = m
	}
	if err := b.refuse(ctx, out); err != nil {
		return err
	}
	return publishError(out, b.driver.Publish(ctx, out))
}

// refuse finds what is wrong before anything is sent.
func (b *Bus) refuse(ctx context.Context, msgs []Message) error {
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	if closed {
		return publishError(msgs, repeat(ErrClosed, len(msgs)))
	}
	if err := ctx.Err(); err != nil {
		return publishError(msgs, repeat(err, len(msgs)))
	}
	limit := b.driver.Capabilities().MaxPayload
	var errs []error
	for i := range msgs {
		err := msgs[i].Validate()
		if err == nil && limit > 0 && len(msgs[i].Payload) > limit {
			err = fmt.Errorf("payload has %d bytes: the broker takes at most %d", len(msgs[i].Payload), limit)
		}
		if err == nil {
			continue
		}
		if errs == nil {
			errs = repeat(errNotSent, len(msgs))
		}
		errs[i] = &invalidError{err}
	}
	return publishError(msgs, errs)
}

// publishError is the *PublishError for a driver's result, or nil.
func publishError(msgs []Message, errs []error) error {
	if errs == nil {
		return nil
	}
	if len(errs) != len(msgs) {
		errs = repeat(fmt.Errorf("the driver answered for %d of %d messages: %w", len(errs), len(msgs), ErrInDoubt), len(msgs))
	}
	pe := &PublishError{Total: len(msgs)}
	for i, err := range errs {
		if err != nil {
			pe.Failed = append(pe.Failed, Failure{Index: i, ID: msgs[i].ID, Err: err, InDoubt: errors.Is(err, ErrInDoubt)})
		}
	}
	if len(pe.Failed) == 0 {
		return nil
	}
	return pe
}

func repeat(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// Open makes the subscription stand and returns its consumer: messages published after Open has returned will reach
// the group, even before Consumer.Run. It blocks until the broker has confirmed or ctx is done. A Subscription that
// Validate rejects is an error, one that the driver cannot serve a *CapabilityError.
func (b *Bus) Open(ctx context.Context, s Subscription) (*Consumer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	s = s.withDefaults()
	caps := b.driver.Capabilities()
	if s.Ordered && !caps.Ordered {
		return nil, &CapabilityError{Driver: caps.Driver, Capability: "Ordered"}
	}
	if s.Start == "start" && !caps.ReplayFromStart {
		return nil, &CapabilityError{Driver: caps.Driver, Capability: "ReplayFromStart"}
	}
	receiver, err := b.driver.Open(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("pubsub: consumer %q: %w", s.Name, err)
	}
	c := newConsumer(b, s, receiver, caps)
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.consumers[c] = struct{}{}
	}
	b.mu.Unlock()
	if closed {
		return nil, errors.Join(ErrClosed, receiver.Close())
	}
	return c, nil
}

// Close closes all consumers, each with its drain, and then the driver. Publish keeps working for the handlers that
// are finishing and is refused afterwards. Calling it again does nothing.
func (b *Bus) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.mu.Unlock()
	err := b.closeConsumers()
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return errors.Join(err, b.closeConsumers(), b.driver.Close()) // the second time for one opened meanwhile
}

func (b *Bus) closeConsumers() error {
	b.mu.Lock()
	var wg sync.WaitGroup
	errs := make(chan error, len(b.consumers))
	for c := range b.consumers {
		wg.Go(func() { errs <- c.Close() })
	}
	b.mu.Unlock()
	wg.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

func (b *Bus) forget(c *Consumer) {
	b.mu.Lock()
	delete(b.consumers, c)
	b.mu.Unlock()
}
