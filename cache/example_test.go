package cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/backstay-go/backstay/cache"
)

func Example() {
	loadUser := func(_ context.Context, id int) (string, error) {
		fmt.Println("loading", id)
		return fmt.Sprintf("user-%d", id), nil
	}
	users := cache.New(loadUser, cache.Config{Name: "users", TTL: time.Minute})
	defer users.Close()

	for range 3 {
		u, err := users.Get(context.Background(), 7)
		fmt.Println(u, err)
	}
	// Output:
	// loading 7
	// user-7 <nil>
	// user-7 <nil>
	// user-7 <nil>
}

// After a write to the source, Delete makes the next Get load the new value. A load that read the old one, and is
// still on its way, cannot bring it back.
func ExampleCache_Delete() {
	price := 10
	prices := cache.New(func(context.Context, string) (int, error) { return price, nil }, cache.Config{Name: "prices"})
	defer prices.Close()
	ctx := context.Background()

	p, _ := prices.Get(ctx, "tea")
	fmt.Println(p)

	price = 12 // commit first
	if err := prices.Delete(ctx, "tea"); err != nil {
		fmt.Println(err)
	}
	p, _ = prices.Get(ctx, "tea")
	fmt.Println(p)
	// Output:
	// 10
	// 12
}

// However many callers miss a key at once, the source is asked once.
func ExampleCache_Get() {
	ready := make(chan struct{})
	reports := cache.New(func(context.Context, string) (string, error) {
		<-ready
		return "report", nil
	}, cache.Config{Name: "reports"})
	defer reports.Close()

	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { _, _ = reports.Get(context.Background(), "monthly") })
	}
	close(ready)
	wg.Wait()
	fmt.Println("loads:", reports.Stats().Loads)
	// Output: loads: 1
}

func ExamplePanicError() {
	c := cache.New(func(context.Context, string) (int, error) { panic("no such table") }, cache.Config{Name: "users"})
	defer c.Close()

	_, err := c.Get(context.Background(), "k")
	if p, ok := errors.AsType[*cache.PanicError](err); ok {
		fmt.Println("the loader panicked:", p.Value)
	}
	// Output: the loader panicked: no such table
}

func ExampleCache_Reconfigure() {
	c := cache.New(func(_ context.Context, k string) (string, error) { return k, nil }, cache.Config{Name: "users"})
	defer c.Close()

	var cfg cache.Config
	if err := json.Unmarshal([]byte(`{"name": "users", "ttl": "30s", "load_timeout": "off"}`), &cfg); err != nil {
		fmt.Println(err)
	}
	fmt.Println(c.Reconfigure(cfg), c.Config().TTL, c.Config().MaxEntries)
	// Output: <nil> 30s 10000
}
