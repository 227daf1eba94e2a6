package test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/backstay-go/backstay/pubsub"
)

// watermillPublisher is a bus as Watermill sees a publisher. The suite expects order among messages of one payload, so that is the key.
type watermillPublisher struct{ bus *pubsub.Bus }

func newWatermillPublisher(t *testing.T, driver pubsub.Driver) *watermillPublisher {
	p := &watermillPublisher{pubsub.New(driver)}
	t.Cleanup(func() { closeInTime(t, p.Close) })
	return p
}

func (p *watermillPublisher) Publish(topic string, messages ...*message.Message) error {
	all := make([]pubsub.Message, len(messages))
	for i, m := range messages {
		all[i] = pubsub.Message{ID: m.UUID, Topic: topic, Key: string(m.Payload), Header: pubsub.Header(m.Metadata), Payload: m.Payload}
	}
	return p.bus.Publish(context.Background(), all...)
}

func (p *watermillPublisher) Close() error { return p.bus.Close() }

// watermillSubscriber is a bus as Watermill sees a subscriber. A handler hands its message over and waits for what becomes of it.
type watermillSubscriber struct {
	bus     *pubsub.Bus
	group   string // empty: one for each subscription, from the first message on
	ordered bool
	closing context.Context
	close   func() error

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
	errs    []error
}

func newWatermillSubscriber(t *testing.T, driver pubsub.Driver, group string, ordered bool) *watermillSubscriber {
	closing, stop := context.WithCancel(context.Background())
	s := &watermillSubscriber{bus: pubsub.New(driver), group: group, ordered: ordered, closing: closing}
	s.close = sync.OnceValue(func() error {
		stop()
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.running.Wait()
		return errors.Join(append(s.errs, s.bus.Close())...)
	})
	t.Cleanup(func() { closeInTime(t, s.close) })
	return s
}

// closeInTime closes what tests of the suite leave open.
func closeInTime(t *testing.T, end func() error) {
	if err := end(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// subscription asks for what the suite expects of every broker: messages that are refused come again at once and for ever.
func (s *watermillSubscriber) subscription(topic string) pubsub.Subscription {
	sub := pubsub.Subscription{
		Topic: topic, Group: s.group, Ordered: s.ordered,
		MaxAttempts: -1, BackoffInitial: -1, HandleTimeout: -1, DrainTimeout: -1,
		Lease: watermillLease,
	}
	if s.group == "" {
		sub.Group, sub.Start = ownGroup(), "start"
	}
	return sub
}

// SubscribeInitialize makes the group stand, so that it gets what is published before its first member comes.
func (s *watermillSubscriber) SubscribeInitialize(topic string) error {
	if s.group == "" {
		return nil
	}
	c, err := s.bus.Open(context.Background(), s.subscription(topic))
	if err != nil {
		return err
	}
	return c.Close()
}

func (s *watermillSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, pubsub.ErrClosed
	}
	c, err := s.bus.Open(ctx, s.subscription(topic))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(s.closing, cancel)
	out := make(chan *message.Message)
	s.running.Go(func() {
		defer cancel()
		defer unhook()
		defer close(out)
		err := errors.Join(c.Run(ctx, handOver(ctx, out)), c.Close())
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.errs = append(s.errs, err)
		}
	})
	return out, nil
}

func (s *watermillSubscriber) Close() error { return s.close() }

var (
	errNacked = errors.New("nacked")
	errEnded  = errors.New("the subscription has ended")
)

func handOver(subscribed context.Context, out chan<- *message.Message) pubsub.Handler {
	return func(ctx context.Context, m pubsub.Message) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		w := message.NewMessage(m.ID, m.Payload)
		w.Metadata = message.Metadata(m.Header)
		w.SetContext(ctx)
		select {
		case out <- w:
		case <-subscribed.Done():
			return errEnded
		}
		select {
		case <-w.Acked():
			return nil
		case <-w.Nacked():
			return errNacked
		case <-subscribed.Done():
		}
		select {
		case <-w.Acked(): // before the end
			return nil
		default:
			return errEnded
		}
	}
}
