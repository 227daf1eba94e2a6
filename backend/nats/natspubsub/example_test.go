package natspubsub_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/nats-io/nats.go"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// connected starts a broker in this process; a service with a cluster calls natspubsub.Open instead.
func connected() (*nats.Conn, func()) {
	dir, err := os.MkdirTemp("", "natspubsub")
	if err != nil {
		log.Fatal(err)
	}
	srv, err := natsembed.Start(natsembed.Config{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := srv.Connect()
	if err != nil {
		log.Fatal(err)
	}
	return conn, func() {
		conn.Close()
		_ = srv.Close()
		_ = os.RemoveAll(dir)
	}
}

// Publish a message and handle it.
func Example() {
	conn, stop := connected()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	driver, err := natspubsub.New(ctx, conn, natspubsub.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	bus := pubsub.New(driver)
	defer func() { _ = bus.Close() }()

	if err := bus.Publish(ctx, pubsub.Message{Topic: "orders.placed", Payload: []byte("o-1")}); err != nil {
		fmt.Println(err)
		return
	}
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders.placed", Group: "billing", Start: "start"})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
		fmt.Printf("billed %s, attempt %d\n", m.Payload, m.Attempt)
		cancel() // an example ends here; Run drains
		return nil
	})
	fmt.Println(err)
	// Output:
	// billed o-1, attempt 1
	// <nil>
}

// What a driver promises is read from it, not assumed.
func ExampleDriver_Capabilities() {
	conn, stop := connected()
	defer stop()
	driver, err := natspubsub.New(context.Background(), conn, natspubsub.Config{Storage: "memory"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = driver.Close() }()
	c := driver.Capabilities()
	fmt.Println(c.Ordered, c.Durable, c.Durability)
	// Output: true false in the memory of the server
}

// A message sent twice under one ID, as after an error in doubt, is stored once.
func ExampleDriver_Publish() {
	conn, stop := connected()
	defer stop()
	ctx := context.Background()
	driver, err := natspubsub.New(ctx, conn, natspubsub.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = driver.Close() }()
	m := pubsub.Message{ID: "order-7", Topic: "orders.placed"}
	for range 2 {
		if errs := driver.Publish(ctx, []pubsub.Message{m}); errs != nil {
			fmt.Println(errs[0])
			return
		}
	}
	fmt.Println("duplicates:", driver.Stats().Duplicates)
	// Output: duplicates: 1
}

// Services that disagree about a topic are told so, before they lose order or messages over it.
func ExampleErrMismatch() {
	conn, stop := connected()
	defer stop()
	ctx := context.Background()
	for _, lanes := range []int{16, 8} {
		driver, err := natspubsub.New(ctx, conn, natspubsub.Config{Lanes: lanes})
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, err := range driver.Publish(ctx, []pubsub.Message{{ID: "1", Topic: "orders"}}) {
			fmt.Println(err)
		}
		_ = driver.Close()
	}
	// Output: natspubsub "backstay": topic orders: natspubsub: mismatch: stream backstay~orders: Config.Lanes is 8, found 16
}
