package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

type placed struct {
	Order string `json:"order"`
	Cents int    `json:"cents"`
}

// The topic is shared by publisher and consumer; the order's ID is its key.
var ordersPlaced = pubsub.JSON("orders.placed", func(p placed) string { return p.Order })

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	defer func() { _ = bus.Close() }()

	c, err := bus.Open(ctx, pubsub.Subscription{Topic: ordersPlaced.Name(), Group: "billing"})
	if err != nil {
		panic(err)
	}
	if err := ordersPlaced.Publish(ctx, bus, placed{"o-1", 4200}); err != nil {
		panic(err)
	}
	err = c.Run(ctx, ordersPlaced.Handle(func(_ context.Context, p placed) error {
		fmt.Println("bill", p.Order, p.Cents)
		stop() // in a service: signal.NotifyContext
		return nil
	}))
	fmt.Println("drained:", err)
	// Output:
	// bill o-1 4200
	// drained: <nil>
}

// The messages of a key are handled in order, also when one of them fails at first.
func ExampleSubscription_ordered() {
	ctx, stop := context.WithCancel(context.Background())
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	defer func() { _ = bus.Close() }()
	c, err := bus.Open(ctx, pubsub.Subscription{
		Topic: "accounts", Group: "ledger", Ordered: true, BackoffInitial: time.Millisecond,
	})
	if err != nil {
		panic(err)
	}
	for _, change := range []string{"open", "deposit", "close"} {
		_ = bus.Publish(ctx, pubsub.Message{Topic: "accounts", Key: "account-7", Payload: []byte(change)})
	}
	_ = c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
		change := string(m.Payload)
		if change == "open" && m.Attempt == 1 {
			fmt.Println("open: the database is away")
			return errors.New("the database is away")
		}
		fmt.Println(change)
		if change == "close" {
			stop()
		}
		return nil
	})
	// Output:
	// open: the database is away
	// open
	// deposit
	// close
}

// A message that can never be handled goes to the dead-letter topic at once, where anybody can read it.
func ExampleDeadLetter() {
	ctx, stop := context.WithCancel(context.Background())
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}), pubsub.OnDeadLetter(func(pubsub.DeadLettered) { stop() }))
	defer func() { _ = bus.Close() }()
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "billing"})
	if err != nil {
		panic(err)
	}
	_ = bus.Publish(ctx, pubsub.Message{Topic: "orders", Payload: []byte("gibberish")})
	_ = c.Run(ctx, func(context.Context, pubsub.Message) error {
		return pubsub.DeadLetter(errors.New("not an order"))
	})

	ctx, stop = context.WithCancel(context.Background())
	dead, err := bus.Open(ctx, pubsub.Subscription{Topic: pubsub.DeadLetterTopic("orders", "billing"), Group: "operator", Start: "start"})
	if err != nil {
		panic(err)
	}
	_ = dead.Run(ctx, func(_ context.Context, m pubsub.Message) error {
		fmt.Printf("%s: %s\n", m.Payload, m.Header[pubsub.HeaderLastError])
		stop()
		return nil
	})
	// Output: gibberish: not an order
}

// RetryAfter sets the delay before the next attempt.
func ExampleRetryAfter() {
	ctx, stop := context.WithCancel(context.Background())
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}), pubsub.OnRetry(func(r pubsub.Retried) {
		fmt.Println("attempt", r.Message.Attempt, "failed:", r.Err, "- again in", r.Delay)
	}))
	defer func() { _ = bus.Close() }()
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "mail", Group: "sender"})
	if err != nil {
		panic(err)
	}
	_ = bus.Publish(ctx, pubsub.Message{Topic: "mail"})
	_ = c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
		if m.Attempt == 1 {
			return pubsub.RetryAfter(20*time.Millisecond, errors.New("greylisted"))
		}
		fmt.Println("sent")
		stop()
		return nil
	})
	// Output:
	// attempt 1 failed: greylisted - again in 20ms
	// sent
}
