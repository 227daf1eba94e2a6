package redispubsub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// redisURL is the server that the examples use.
func redisURL() string {
	if url := os.Getenv("BACKSTAY_REDIS_URL"); url != "" {
		return url
	}
	return "redis://127.0.0.1:6379"
}

// remove deletes the keys of an example.
func remove(prefix string) {
	opt, err := redispubsub.ClientOption(redisURL())
	if err != nil {
		log.Fatal(err)
	}
	client, err := rueidis.NewClient(opt)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	keys, _ := client.Do(context.Background(), client.B().Keys().Pattern("{"+prefix+".*").Build()).AsStrSlice()
	for _, key := range keys {
		_ = client.Do(context.Background(), client.B().Del().Key(key).Build())
	}
}

// examplePrefix keeps examples that run at the same time apart.
func examplePrefix(name string) string { return fmt.Sprintf("bstest-%d-%s", os.Getpid(), name) }

// Publish a message and handle it.
func Example() {
	prefix := examplePrefix("use")
	defer remove(prefix)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	driver, err := redispubsub.Open(ctx, redisURL(), redispubsub.Config{Prefix: prefix, MaxAge: 7 * 24 * time.Hour})
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

// Messages of a key are handled in order, whichever member of the group has its lane.
func Example_ordered() {
	prefix := examplePrefix("ordered")
	defer remove(prefix)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	driver, err := redispubsub.Open(ctx, redisURL(), redispubsub.Config{Prefix: prefix})
	if err != nil {
		fmt.Println(err)
		return
	}
	bus := pubsub.New(driver)
	defer func() { _ = bus.Close() }()

	var msgs []pubsub.Message
	for _, step := range []string{"placed", "paid", "shipped"} {
		msgs = append(msgs, pubsub.Message{Topic: "orders", Key: "o-1", Payload: []byte(step)})
	}
	if err := bus.Publish(ctx, msgs...); err != nil {
		fmt.Println(err)
		return
	}
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "history", Ordered: true, Start: "start"})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
		fmt.Println(m.Key, string(m.Payload))
		if string(m.Payload) == "shipped" {
			cancel()
		}
		return nil
	})
	// Output:
	// o-1 placed
	// o-1 paid
	// o-1 shipped
}

// Services that disagree about a topic are told so, before they lose order over it.
func ExampleErrMismatch() {
	prefix := examplePrefix("mismatch")
	defer remove(prefix)
	ctx := context.Background()
	for _, lanes := range []int{16, 8} {
		driver, err := redispubsub.Open(ctx, redisURL(), redispubsub.Config{Name: "shop", Prefix: prefix, Lanes: lanes})
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, err := range driver.Publish(ctx, []pubsub.Message{{ID: "1", Topic: "orders"}}) {
			fmt.Println(err)
		}
		_ = driver.Close()
	}
	// Output: redispubsub "shop": topic orders: redispubsub: mismatch: topic orders: Config.Lanes is 8, found 16
}

// A Config is data, as a service reads it from its settings.
func ExampleConfig() {
	var cfg redispubsub.Config
	err := json.Unmarshal([]byte(`{"prefix": "shop", "lanes": 32, "max_age": "48h", "replicas": 1}`), &cfg)
	fmt.Println(cfg.Lanes, cfg.MaxAge, err)
	fmt.Println(redispubsub.Config{Lanes: -1, MaxLength: -1}.Validate())
	// Output:
	// 32 48h0m0s <nil>
	// redispubsub: Config.Lanes is -1: it must be 1 to 256, or zero for the default
	// redispubsub: Config.MaxLength is -1: it must be positive, or zero for no limit
}
