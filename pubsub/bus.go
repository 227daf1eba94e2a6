package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Bus publishes to and consumes from one broker. Make it with New. It is safe for concurrent use.
type Bus struct {
	// What Publish needs comes first, see Consumer.
	driver         Driver
	publishTimeout time.Duration
	refusing       atomic.Bool // the same as closed
	spare          atomic.Pointer[deadline]
	counts         busCounts
	fixed          Capabilities // valid if they say so

	hooks    hooks
	stopping context.Context // done once Close is called
	stop     context.CancelFunc

	mu        sync.Mutex
	closed    bool
	consumers map[*Consumer]struct{}
	redrives  sync.WaitGroup // those that run; none begins once closed is set
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

// Retried describes a message that failed or was rejected and will be tried again, or a dead letter that could not be published.
type Retried struct {
	// Consumer is the Name of the subscription.
	Consumer string
	// Message is the message as the handler saw it, or would have; its Attempt is the one that failed or was rejected.
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

// OnRetry calls fn after a failed attempt that is not the last, and after a rejected one. It runs on the goroutine of the handler, outside locks,
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
		driver:         d,
		fixed:          d.Capabilities(),
		hooks:          hooks{deadLetter: func(DeadLettered) {}, retry: func(Retried) {}},
		publishTimeout: defaultPublishTimeout,
		consumers:      make(map[*Consumer]struct{}),
	}
	b.stopping, b.stop = context.WithCancel(context.Background())
	for _, opt := range opts {
		opt(b)
	}
	return b
}

// Capabilities says what the driver can do on the server that it is connected to. It does not block.
func (b *Bus) Capabilities() Capabilities { return b.driver.Capabilities() }

// Open makes the subscription stand and returns its consumer: messages published after Open has returned will reach
// the group, even before Consumer.Run. It blocks until the broker has confirmed or ctx is done. A Temporary
// subscription without a Group gets a random one, which Consumer.Config tells. A Subscription that Validate rejects is
// an error, one that the driver cannot serve a *CapabilityError.
func (b *Bus) Open(ctx context.Context, s Subscription) (*Consumer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Group == "" {
		s.Group = "tmp-" + newID()
	}
	s = s.withDefaults()
	caps := b.driver.Capabilities()
	if err := caps.lacks(s); err != nil {
		return nil, err
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

// Close closes all consumers, each with its drain, ends every Redrive, and then closes the driver. Publish keeps working
// for the handlers that are finishing and is refused afterwards. Calling it again does nothing.
func (b *Bus) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.mu.Unlock()
	b.stop()
	err := b.closeConsumers()
	b.mu.Lock()
	b.closed = true
	b.refusing.Store(true)
	b.mu.Unlock()
	err = errors.Join(err, b.closeConsumers()) // again, for one opened meanwhile
	b.redrives.Wait()
	return errors.Join(err, b.driver.Close())
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
