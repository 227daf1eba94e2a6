package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/retry"
)

// A connection is a process's way to the broker. The broker may be away when the process starts: a service takes requests all
// the same, and what it has to tell waits in its outbox. Safe for concurrent use.
type connection struct {
	bus atomic.Pointer[pubsub.Bus]
}

var errNotYet = errors.New("the broker has not been reached yet")

// Publish passes the messages on once there is a broker.
func (c *connection) Publish(ctx context.Context, msgs ...pubsub.Message) error {
	if bus := c.bus.Load(); bus != nil {
		return bus.Publish(ctx, msgs...)
	}
	return errNotYet
}

func (c *connection) close() error {
	if bus := c.bus.Load(); bus != nil {
		return bus.Close()
	}
	return nil
}

// A listener is a group with its handler.
type listener struct {
	group  string
	handle pubsub.Handler
}

// publisher is where relays take events.
func (s *shop) publisher() pubsub.Publisher {
	if s.post == nil {
		return s.bus
	}
	return &s.connection
}

const reachTimeout = 5 * time.Second // of one attempt: of several servers another one may do better

// reached tries for as long as it takes.
var reached = retry.New(retry.Config{Name: "broker", MaxAttempts: -1, InitialInterval: 50 * time.Millisecond, MaxInterval: time.Second})

// prepare has the connection, once it stands, closed after all that uses it.
func (s *shop) prepare(context.Context) error {
	s.onClose(s.connection.close)
	return nil
}

// connect reaches the broker in the background, and then handles the events that are for this process.
func (s *shop) connect(context.Context) error {
	s.background("broker", func(ctx context.Context) error {
		err := reached.Do(ctx, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, reachTimeout)
			defer cancel()
			b, err := s.openBroker(ctx)
			if err == nil {
				s.bus = pubsub.New(b.driver)
				s.connection.bus.Store(s.bus)
			}
			return err
		})
		if err != nil {
			return nil //nolint:nilerr // it ends only with ctx
		}
		return s.listen(ctx)
	})
	return nil
}

// listen handles events until ctx is done.
func (s *shop) listen(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for _, l := range s.listeners {
		for _, topic := range readers[l.group] {
			c, err := s.openConsumer(ctx, topic, l.group)
			if err != nil {
				return nil //nolint:nilerr // as above
			}
			all.Go(func() {
				if err := c.Run(ctx, l.handle); err != nil {
					s.fail(named(c.Config().Name, err))
				}
			})
		}
	}
	return nil
}

func (s *shop) openConsumer(ctx context.Context, topic, group string) (*pubsub.Consumer, error) {
	c, err := retry.Wrap(reached, func(ctx context.Context, sub pubsub.Subscription) (*pubsub.Consumer, error) {
		ctx, cancel := context.WithTimeout(ctx, reachTimeout)
		defer cancel()
		return s.bus.Open(ctx, sub)
	})(ctx, s.subscription(topic, group))
	if err == nil {
		s.note(c)
	}
	return c, err
}

func (s *shop) note(c *pubsub.Consumer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.consumers = append(s.consumers, c)
}

// consume handles the events that the group reads. Under chaos some acknowledgements are lost.
func (s *shop) consume(ctx context.Context, group string, h pubsub.Handler) error {
	if s.cfg.chaos {
		h = losingAcks(s.cfg.seed, group, h)
	}
	counted := func(ctx context.Context, m pubsub.Message) error {
		if m.Attempt > 1 {
			s.redelivered.Add(1)
		}
		return h(ctx, m)
	}
	if s.post != nil {
		s.listeners = append(s.listeners, listener{group, counted})
		return nil
	}
	for _, topic := range readers[group] {
		c, err := s.bus.Open(ctx, s.subscription(topic, group))
		if err != nil {
			return err
		}
		s.note(c)
		s.background("consumer "+c.Config().Name, func(ctx context.Context) error { return c.Run(ctx, counted) })
	}
	return nil
}

func (s *shop) subscription(topic, group string) pubsub.Subscription {
	start := "end" // loses nothing: a group stands before the first relay begins
	if s.bus.Capabilities().ReplayFromStart {
		start = "start"
	}
	return pubsub.Subscription{Topic: topic, Group: group, Ordered: true, Start: start, Lease: lease}
}
