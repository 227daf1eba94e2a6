package pubsub_test

import (
	"context"
	"encoding/xml"
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

// Once the fault is repaired, the dead letters of a group are given back to it.
func ExampleBus_Redrive() {
	ctx := context.Background()
	dead := make(chan struct{}, 1)
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}), pubsub.OnDeadLetter(func(d pubsub.DeadLettered) {
		fmt.Printf("%s: dead after %d attempts: %v\n", d.Message.ID, d.Attempts, d.Err)
		dead <- struct{}{}
	}))
	defer func() { _ = bus.Close() }()
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "billing", MaxAttempts: 2, BackoffInitial: time.Millisecond})
	if err != nil {
		panic(err)
	}
	done := make(chan struct{})
	handler := func(_ context.Context, m pubsub.Message) error {
		if _, again := m.Header[pubsub.HeaderRedrive]; !again {
			return errors.New("the price list is empty")
		}
		fmt.Printf("%s: handled\n", m.ID)
		close(done)
		return nil
	}
	go func() { _ = c.Run(ctx, handler) }() // until bus.Close
	_ = bus.Publish(ctx, pubsub.Message{ID: "o-1", Topic: "orders"})
	<-dead

	moved, err := bus.Redrive(ctx, "orders", "billing", 1) // 0: all of them
	<-done
	fmt.Println(moved, err)
	// Output:
	// o-1: dead after 2 attempts: the price list is empty
	// o-1: handled
	// 1 <nil>
}

// Any encoding can be a Codec; a version of the schema keeps consumers from reading what they do not understand.
func ExampleNewTopic() {
	type reading struct {
		Sensor  string
		Celsius float64
	}
	readings := pubsub.NewTopic("readings", func(r reading) string { return r.Sensor }, pubsub.Codec[reading]{
		ContentType: "application/xml",
		Encode:      func(r reading) ([]byte, error) { return xml.Marshal(r) },
		Decode: func(payload []byte) (r reading, err error) {
			err = xml.Unmarshal(payload, &r)
			return r, err
		},
	})
	first, second := readings.Version("1"), readings.Version("2")

	m, err := first.Message(reading{"attic", 21.5})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s %s %s\n", m.Key, m.Header["content-type"], m.Payload)
	show := func(_ context.Context, r reading) error { fmt.Println(r.Sensor, r.Celsius); return nil }
	fmt.Println(first.Handle(show)(context.Background(), m))
	fmt.Println(second.Handle(show)(context.Background(), m)) // in a consumer: a dead letter
	// Output:
	// attic application/xml <reading><Sensor>attic</Sensor><Celsius>21.5</Celsius></reading>
	// attic 21.5
	// <nil>
	// pubsub: topic "readings": schema version "1": this topic has "2"
}

// A handler that is cheaper for many messages than for each gets them in batches.
func ExampleConsumer_RunBatch() {
	ctx, stop := context.WithCancel(context.Background())
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	defer func() { _ = bus.Close() }()
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: ordersPlaced.Name(), Group: "warehouse", BatchSize: 3, BatchWait: time.Minute})
	if err != nil {
		panic(err)
	}
	err = ordersPlaced.Publish(ctx, bus, placed{"o-1", 100}, placed{"o-2", 200}, placed{"o-3", 300})
	if err != nil {
		panic(err)
	}
	err = c.RunBatch(ctx, ordersPlaced.HandleBatch(func(_ context.Context, orders []placed) error {
		total := 0
		for _, o := range orders {
			total += o.Cents
		}
		fmt.Println(len(orders), "rows in one transaction, worth", total)
		stop()
		return nil
	}))
	fmt.Println("drained:", err)
	// Output:
	// 3 rows in one transaction, worth 600
	// drained: <nil>
}
