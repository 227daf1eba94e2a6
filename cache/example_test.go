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

// A value past its TTL may be better than none, if the caller knows.
func ExampleCache_Lookup() {
	up := true
	rates := cache.New(func(context.Context, string) (float64, error) {
		if !up {
			return 0, errors.New("no route to the exchange")
		}
		return 1.08, nil
	}, cache.Config{Name: "rates", TTL: time.Nanosecond, StaleIfError: time.Hour})
	defer rates.Close()
	ctx := context.Background()

	for range 2 {
		r, err := rates.Lookup(ctx, "EURUSD")
		fmt.Println(r.Value, r.Stale, err)
		up = false
	}
	// Output:
	// 1.08 false <nil>
	// 1.08 true <nil>
}

// What is missing is loaded by one call.
func ExampleCache_GetAll() {
	load := func(_ context.Context, id int) (string, error) { return fmt.Sprintf("user-%d", id), nil }
	loadAll := func(_ context.Context, ids []int) (map[int]string, error) {
		fmt.Println("select ... where id in", ids)
		return map[int]string{2: "user-2", 3: "user-3"}, nil // there is no 4
	}
	users := cache.New(load, cache.Config{Name: "users"}, cache.WithBatchLoader(loadAll))
	defer users.Close()
	ctx := context.Background()

	_ = users.Set(ctx, 1, "user-1")
	found, err := users.GetAll(ctx, []int{1, 2, 3, 4})
	fmt.Println(found, err)
	// Output:
	// select ... where id in [2 3 4]
	// map[1:user-1 2:user-2 3:user-3] <nil>
}

// The application loads. Meanwhile others who miss the key wait in Begin, and a Delete keeps what was loaded from
// being kept.
func ExampleAside() {
	users := cache.NewAside[int, string](cache.Config{Name: "users"})
	defer users.Close()
	ctx := context.Background()

	user := func(id int) (string, error) {
		if u, ok, err := users.Get(ctx, id); ok || err != nil {
			return u, err
		}
		g, err := users.Begin(ctx, id)
		if err != nil || g.Found {
			return g.Entry.Value, err
		}
		defer func() { _ = g.Lease.Release(ctx) }()
		fmt.Println("loading", id)
		u := fmt.Sprintf("user-%d", id)
		_, err = g.Lease.Fill(ctx, cache.Entry[string]{Value: u})
		return u, err
	}
	for range 2 {
		fmt.Println(user(7))
	}
	// Output:
	// loading 7
	// user-7 <nil>
	// user-7 <nil>
}

func ExampleWriteThrough() {
	table := map[string]int{"tea": 10}
	prices := cache.NewWriteThrough(
		func(_ context.Context, k string) (int, error) { return table[k], nil },
		func(_ context.Context, k string, v int) error { table[k] = v; return nil },
		cache.Config{Name: "prices"})
	defer prices.Close()
	ctx := context.Background()

	if err := prices.Set(ctx, "tea", 12); err != nil {
		fmt.Println(err)
	}
	p, _ := prices.Get(ctx, "tea")
	fmt.Println(p, table["tea"], prices.Stats().Loads)
	// Output: 12 12 0
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
