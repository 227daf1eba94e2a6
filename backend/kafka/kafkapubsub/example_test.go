package kafkapubsub_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// brokers starts a fake cluster in this process; a service has the addresses of a real one.
func brokers() (seeds string, stop func()) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		log.Fatal(err)
	}
	return "kafka://" + strings.Join(c.ListenAddrs(), ","), c.Close
}

// Publish a message and handle it.
func Example() {
	seeds, stop := brokers()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	driver, err := kafkapubsub.Open(ctx, seeds, kafkapubsub.Config{Partitions: 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	bus := pubsub.New(driver)
	defer func() { _ = bus.Close() }()

	if err := bus.Publish(ctx, pubsub.Message{Topic: "orders.placed", Key: "o-1", Payload: []byte("o-1")}); err != nil {
		fmt.Println(err)
		return
	}
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders.placed", Group: "billing", Start: "start", Ordered: true})
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

// A service that has a client lends its options: addresses, TLS, SASL, logger.
func ExampleNew() {
	seeds, stop := brokers()
	defer stop()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.TrimPrefix(seeds, "kafka://")))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	driver, err := kafkapubsub.New(context.Background(), client, kafkapubsub.Config{Prefix: "shop."})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = driver.Close() }()
	fmt.Println(driver.Describe())
	// Output: kafkapubsub kafka {kafka shop. create 16 0 4096 500ms 0s 30s 10s}
}

// What a driver promises is read from it, not assumed.
func ExampleDriver_Capabilities() {
	seeds, stop := brokers()
	defer stop()
	driver, err := kafkapubsub.Open(context.Background(), seeds, kafkapubsub.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = driver.Close() }()
	c := driver.Capabilities()
	fmt.Println(c.Ordered, c.Durable, c.ReplayFromTime, c.DeliverAt, c.Temporary)
	fmt.Println(c.Durability)
	// Output:
	// true true true false false
	// acknowledged by all in-sync replicas of the partition, which fsync as they are configured
}

// Where people make the topics, a service that asks for one that does not exist is told so.
func ExampleErrNoTopic() {
	seeds, stop := brokers()
	defer stop()
	ctx := context.Background()
	driver, err := kafkapubsub.Open(ctx, seeds, kafkapubsub.Config{Topics: "check"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = driver.Close() }()
	for _, err := range driver.Publish(ctx, []pubsub.Message{{ID: "1", Topic: "ordres"}}) {
		fmt.Println(err)
	}
	// Output: kafkapubsub "kafka": topic ordres: kafkapubsub: no such topic
}
