package pubsubtest

import (
	"context"
	"errors"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

func drainFinishes(e *env) {
	s := e.sub("g")
	s.Concurrency = 3
	started, release := make(chan pubsub.Message, 100), make(chan struct{})
	first := e.inbox()
	run := e.consume(s, func(ctx context.Context, m pubsub.Message) error {
		started <- m
		<-release
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return first.ok(ctx, m)
	})
	msgs := numbered("m", 10)
	e.publish(msgs...)
	for range 3 {
		select {
		case <-started:
		case <-time.After(e.h.Wait):
			e.Fatal("handlers did not start")
		}
	}
	run.cancel()
	close(release)
	if err := run.stop(); err != nil {
		e.Fatalf("Run: %v", err)
	}
	handled := make(map[string]bool)
	for len(first.ch) > 0 {
		handled[first.next().ID] = true
	}
	if len(handled) < 3 {
		e.Errorf("%d running handlers finished, want 3", len(handled))
	}
	var rest []pubsub.Message
	for _, m := range msgs {
		if !handled[m.ID] {
			rest = append(rest, m)
		}
	}
	second := e.inbox()
	e.consume(e.sub("g"), second.ok)
	second.once(rest) // and nothing that was handled
}

func drainTimeout(e *env) {
	s := e.sub("g")
	s.DrainTimeout = 50 * time.Millisecond
	started := make(chan struct{}, 10)
	run := e.consume(s, func(ctx context.Context, _ pubsub.Message) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	msgs := numbered("m", 1)
	e.publish(msgs...)
	select {
	case <-started:
	case <-time.After(e.h.Wait):
		e.Fatal("the handler did not start")
	}
	if err := run.stop(); !errors.Is(err, pubsub.ErrDrainTimeout) {
		e.Errorf("Run returned %v, want ErrDrainTimeout", err)
	}
	in := e.inbox()
	e.consume(e.sub("g"), in.ok)
	in.once(msgs)
}

func closeIdempotent(e *env) {
	c := e.open(e.bus, e.sub("g"))
	for range 2 {
		if err := c.Close(); err != nil {
			e.Errorf("Consumer.Close: %v", err)
		}
	}
	if err := c.Run(e.soon(), e.inbox().ok); !errors.Is(err, pubsub.ErrClosed) {
		e.Errorf("Run after Close returned %v", err)
	}
	r := e.receiver(e.driver, e.filled("other"))
	for range 2 {
		if err := r.Close(); err != nil {
			e.Errorf("Receiver.Close: %v", err)
		}
	}
	for range 2 {
		if err := e.driver.Close(); err != nil {
			e.Errorf("Driver.Close: %v", err)
		}
	}
}
