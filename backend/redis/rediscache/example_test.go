package rediscache_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/cache"
)

type User struct{ Name string }

func connect() (rueidis.Client, error) {
	url := os.Getenv("BACKSTAY_REDIS_URL")
	if url == "" {
		url = "redis://127.0.0.1:6379"
	}
	opt, err := rediscache.ClientOption(url)
	if err != nil {
		return nil, err
	}
	return rueidis.NewClient(opt)
}

// A cache in two levels: the memory of each process, over entries that all share, and that tell it of changes.
func Example_twoLevels() {
	client, err := connect()
	if err != nil {
		fmt.Println("Ada") // there is no Redis here
		return
	}
	defer client.Close()
	shared, err := rediscache.New[int, User](client, rediscache.Config{Prefix: "example-two-levels"})
	if err != nil {
		fmt.Println(err)
		return
	}
	load := func(_ context.Context, _ int) (User, error) { return User{"Ada"}, nil } // from a database
	users := cache.New(load, cache.Config{Name: "users", TTL: time.Minute, StoreTimeout: 5 * time.Second}, cache.WithL2[int, User](shared))
	defer func() { _ = users.Close() }() // before the client

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	u, err := users.Get(ctx, 7) // from memory, from Redis, or loaded, by one process only
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(u.Name)
	if err := users.Delete(ctx, 7); err != nil { // in all processes, after the database has been changed
		fmt.Println(err)
	}
	// Output: Ada
}

// A Store alone. Usually it is given to a cache, which does the rest.
func Example() {
	client, err := connect()
	if err != nil {
		fmt.Println("Ada") // there is no Redis here
		return
	}
	defer client.Close()
	users, err := rediscache.New[int, User](client, rediscache.Config{Prefix: "example-users"})
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := users.Set(ctx, 7, cache.Entry[User]{Value: User{"Ada"}, TTL: time.Minute}); err != nil {
		fmt.Println(err)
		return
	}
	e, ok, err := users.Get(ctx, 7)
	if err != nil || !ok {
		fmt.Println(err)
		return
	}
	fmt.Println(e.Value.Name)
	if err := users.Delete(ctx, 7); err != nil {
		fmt.Println(err)
	}
	// Output: Ada
}

// A key that is no string or integer needs a text.
func ExampleWithKey() {
	type place struct{ X, Y int }
	option := rediscache.WithKey(
		func(p place) string { return fmt.Sprintf("%d,%d", p.X, p.Y) },
		func(text string) (p place, err error) {
			_, err = fmt.Sscanf(text, "%d,%d", &p.X, &p.Y)
			return p, err
		})
	_, err := rediscache.New[place, string](nil, rediscache.Config{Prefix: "places"}, option)
	fmt.Println(err)
	// Output: rediscache: New: the client is nil
}

// Validate reports every fault at once.
func ExampleConfig_Validate() {
	fmt.Println(rediscache.Config{Prefix: "a{b}", MaxValueSize: -1}.Validate())
	// Output:
	// rediscache: Config.Prefix is "a{b}": it must be 1 to 200 bytes without braces
	// rediscache: Config.MaxValueSize is -1: it must be 1 to 536870878, or zero for 1 MiB
}

// Times out quickly, so that a service can fall back when Redis is away.
func ExampleClientOption() {
	opt, err := rediscache.ClientOption("rediss://cache:secret@redis.internal:6380?write_timeout=1s")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(opt.InitAddress, opt.Username, opt.Dialer.Timeout, opt.ConnWriteTimeout)
	// Output: [redis.internal:6380] cache 1s 1s
}
