// Pubsub-deadletter bills orders, two of which fail: they become dead letters, outlast a restart of the broker, are looked
// at, and are sent back to billing, and to nobody else, once it can handle them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "pubsub-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &story{out: out, done: map[string][]string{}}
	if err := withBus(ctx, dir, s.first); err != nil {
		return err
	}
	fmt.Fprintln(out, "the broker is started again")
	s.mended = true
	return withBus(ctx, dir, s.second)
}

// A story prints what happens and notes who has handled what.
type story struct {
	out    io.Writer
	mended bool
	mu     sync.Mutex
	done   map[string][]string // orders, by group
}

// first publishes five orders, of which billing can handle three and mail all.
func (s *story) first(ctx context.Context, bus *pubsub.Bus) error {
	return s.consume(ctx, bus, map[string]int{"billing": 3, "mail": 5}, func(billing, _ *pubsub.Consumer) bool {
		return billing.Stats().DeadLettered == 2
	}, func() error {
		for _, order := range []string{"tea", "gibberish", "mug", "yacht", "jam"} {
			if err := bus.Publish(ctx, pubsub.Message{ID: order, Topic: "orders"}); err != nil {
				return err
			}
		}
		return nil
	})
}

// second looks at the dead letters and sends them back. Mail has had these orders: it skips them.
func (s *story) second(ctx context.Context, bus *pubsub.Bus) error {
	if err := s.look(ctx, bus); err != nil {
		return err
	}
	return s.consume(ctx, bus, map[string]int{"billing": 5, "mail": 5}, func(_, mail *pubsub.Consumer) bool {
		return mail.Stats().Skipped == 2
	}, func() error {
		n, err := bus.Redrive(ctx, "orders", "billing", 0)
		fmt.Fprintf(s.out, "%d dead letters are sent back\n", n)
		return err
	})
}

// bill is the handler of billing. What can never succeed is said with DeadLetter, or it would be tried three times.
func (s *story) bill(ctx context.Context, m pubsub.Message) error {
	switch {
	case m.ID == "gibberish" && !s.mended:
		return pubsub.DeadLetter(errors.New("not an order"))
	case m.ID == "yacht" && !s.mended:
		return errors.New("above the limit of the card")
	}
	return s.handled("billing")(ctx, m)
}

func (s *story) handled(group string) pubsub.Handler {
	return func(_ context.Context, m pubsub.Message) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.done[group] = append(s.done[group], m.ID)
		fmt.Fprintf(s.out, "%s: %s\n", group, m.ID)
		return nil
	}
}

// look reads the dead letters, as an operator does. It takes nothing away, since it is a group of its own.
func (s *story) look(ctx context.Context, bus *pubsub.Bus) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	c, err := bus.Open(ctx, pubsub.Subscription{
		Topic: pubsub.DeadLetterTopic("orders", "billing"), Group: "operator", Start: "start", Concurrency: 1})
	if err != nil {
		return err
	}
	seen := 0
	return c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
		fmt.Fprintf(s.out, "dead letter: %s after %s attempts: %s\n", m.ID, m.Header[pubsub.HeaderAttempts], m.Header[pubsub.HeaderLastError])
		if seen++; seen == 2 {
			stop()
		}
		return nil
	})
}
