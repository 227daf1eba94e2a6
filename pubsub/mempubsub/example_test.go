package mempubsub_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// Two services in one process: each has a bus of its own on the shared broker.
func ExampleDriver_Connect() {
	ctx, stop := context.WithCancel(context.Background())
	broker := mempubsub.New(mempubsub.Config{})
	shop, billing := pubsub.New(broker), pubsub.New(broker.Connect())
	c, err := billing.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "billing"})
	if err != nil {
		panic(err)
	}
	_ = shop.Publish(ctx, pubsub.Message{Topic: "orders", Payload: []byte("order 1")})
	_ = c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
		fmt.Printf("%s\n", m.Payload)
		stop()
		return nil
	})
	_ = billing.Close()
	_ = shop.Close()
	// Output: order 1
}

// A group that nobody serves fills up and makes publishers wait; the context ends the wait.
func ExampleConfig_maxPending() {
	ctx := context.Background()
	bus := pubsub.New(mempubsub.New(mempubsub.Config{MaxPending: 1}))
	defer func() { _ = bus.Close() }()
	if _, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "asleep"}); err != nil {
		panic(err)
	}
	fmt.Println(bus.Publish(ctx, pubsub.Message{Topic: "orders"}))
	ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	err := bus.Publish(ctx, pubsub.Message{Topic: "orders"})
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output:
	// <nil>
	// true
}

// Retained messages let a new group begin with the past.
func ExampleConfig_retain() {
	ctx, stop := context.WithCancel(context.Background())
	bus := pubsub.New(mempubsub.New(mempubsub.Config{Retain: 100}))
	defer func() { _ = bus.Close() }()
	_ = bus.Publish(ctx, pubsub.Message{Topic: "prices", Payload: []byte("42")})
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "prices", Group: "late", Start: "start"})
	if err != nil {
		panic(err)
	}
	_ = c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
		fmt.Printf("%s\n", m.Payload)
		stop()
		return nil
	})
	// Output: 42
}

// A publisher that must not wait is told which group is full.
func ExampleError() {
	ctx := context.Background()
	bus := pubsub.New(mempubsub.New(mempubsub.Config{MaxPending: 1, WhenFull: "reject"}))
	defer func() { _ = bus.Close() }()
	if _, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "asleep"}); err != nil {
		panic(err)
	}
	fmt.Println(bus.Publish(ctx, pubsub.Message{Topic: "orders"}))
	err := bus.Publish(ctx, pubsub.Message{Topic: "orders"})
	if full, ok := errors.AsType[*mempubsub.Error](err); ok {
		fmt.Println(full.Group, full.Limit, errors.Is(err, mempubsub.ErrFull))
	}
	// Output:
	// <nil>
	// asleep 1 true
}
