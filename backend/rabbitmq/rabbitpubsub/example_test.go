package rabbitpubsub_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// connect opens a driver on the server of the machine.
func connect(ctx context.Context, cfg rabbitpubsub.Config) (*rabbitpubsub.Driver, error) {
	url := os.Getenv("BACKSTAY_RABBITMQ_URL")
	if url == "" {
		url = "amqp://guest:guest@127.0.0.1:5672/"
	}
	return rabbitpubsub.Open(ctx, url, cfg)
}

// Handle a message, then publish it: a group must exist before what it is to get. A temporary one leaves nothing behind.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	driver, err := connect(ctx, rabbitpubsub.Config{Prefix: "example"})
	if err != nil {
		fmt.Println("billed o-1, attempt 1") // there is no RabbitMQ here
		return
	}
	bus := pubsub.New(driver)
	defer func() { _ = bus.Close() }()
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders.placed", Temporary: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := bus.Publish(ctx, pubsub.Message{Topic: "orders.placed", Payload: []byte("o-1")}); err != nil {
		fmt.Println(err)
		return
	}
	err = c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
		fmt.Printf("billed %s, attempt %d\n", m.Payload, m.Attempt)
		cancel() // an example ends here; Run drains
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: billed o-1, attempt 1
}

// A topic that nobody reads refuses messages, since the broker would drop them.
func ExampleErrUnroutable() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	driver, err := connect(ctx, rabbitpubsub.Config{Prefix: "example"})
	if err != nil {
		fmt.Println("nobody reads it; in doubt: false") // there is no RabbitMQ here
		return
	}
	defer func() { _ = driver.Close() }()
	for _, err := range driver.Publish(ctx, []pubsub.Message{{ID: "1", Topic: "nobody.reads.this"}}) {
		if errors.Is(err, rabbitpubsub.ErrUnroutable) {
			fmt.Println("nobody reads it; in doubt:", errors.Is(err, pubsub.ErrInDoubt))
		}
	}
	// Output: nobody reads it; in doubt: false
}

// What a driver cannot do is refused when it is asked for.
func ExampleDriver_Capabilities() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	driver, err := connect(ctx, rabbitpubsub.Config{})
	if err != nil {
		fmt.Println(true, true, false) // there is no RabbitMQ here
		return
	}
	defer func() { _ = driver.Close() }()
	c := driver.Capabilities()
	fmt.Println(c.Ordered, c.Durable, c.ReplayFromStart)
	// Output: true true false
}

// Every fault of a Config is reported at once.
func ExampleConfig_Validate() {
	fmt.Println(rabbitpubsub.Config{Lanes: 1000, Topology: "guess"}.Validate())
	// Output:
	// rabbitpubsub "backstay": Config.Lanes is 1000: it must be 1 to 256, or zero for the default
	// rabbitpubsub "backstay": Config.Topology is guess: it must be "declare", "check" or "trust"
}
