package cache_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/backstay-go/backstay/cache"
)

// BenchmarkHit compares a hit with the bare engine doing the same work: the same expiry and the same coarse clock,
// all keys resident, read in Zipf order.
func BenchmarkHit(b *testing.B) {
	const resident = 10_000
	keys, order := zipf(resident)
	ctx := context.Background()

	clock := otter.NewCoarseClock(10 * time.Millisecond)
	bare := otter.Must(&otter.Options[string, int]{
		MaximumSize: 2 * resident, Clock: clock, ExpiryCalculator: otter.ExpiryWriting[string, int](time.Hour),
	})
	b.Cleanup(func() { bare.StopAllGoroutines(); clock.Stop() })
	loader := otter.LoaderFunc[string, int](func(context.Context, string) (int, error) { return 0, nil })
	c := cache.New(func(context.Context, string) (int, error) { return 0, nil },
		cache.Config{Name: "hit", MaxEntries: 2 * resident, TTL: time.Hour})
	b.Cleanup(func() { _ = c.Close() })
	for i, k := range keys {
		bare.Set(k, i)
		_ = c.Set(ctx, k, i)
	}

	subjects := []struct {
		name string
		get  func(key string)
	}{
		{"otter-GetIfPresent", func(key string) { bare.GetIfPresent(key) }},
		{"otter-Get", func(key string) { _, _ = bare.Get(ctx, key, loader) }},
		{"backstay", func(key string) { _, _ = c.Get(ctx, key) }},
	}
	for _, s := range subjects {
		b.Run(s.name+"/serial", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.get(order[i&(len(order)-1)])
			}
		})
		b.Run(s.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := rand.IntN(len(order)); pb.Next(); i++ {
					s.get(order[i&(len(order)-1)])
				}
			})
		})
	}
	if s := c.Stats(); s.Misses > 0 {
		b.Fatalf("%d misses: not a benchmark of hits", s.Misses)
	}
}

// BenchmarkMiss compares a miss of an always new key with the bare engine, the loader being instant. A caller who may
// cancel does not run the load itself, as it does with the bare engine, so that is a goroutine and a channel more.
func BenchmarkMiss(b *testing.B) {
	ctx := context.Background()
	load := func(context.Context, int) (int, error) { return 1, nil }
	b.Run("otter", func(b *testing.B) {
		clock := otter.NewCoarseClock(10 * time.Millisecond)
		bare := otter.Must(&otter.Options[int, int]{
			MaximumSize: 10_000, Clock: clock, ExpiryCalculator: otter.ExpiryWriting[int, int](time.Hour),
		})
		defer func() { bare.StopAllGoroutines(); clock.Stop() }()
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_, _ = bare.Get(ctx, i, otter.LoaderFunc[int, int](load))
		}
	})
	cancellable, cancel := context.WithCancel(ctx)
	defer cancel()
	for name, ctx := range map[string]context.Context{"backstay": ctx, "backstay-cancellable": cancellable} {
		b.Run(name, func(b *testing.B) {
			c := cache.New(load, cache.Config{Name: "miss", TTL: time.Hour})
			defer func() { _ = c.Close() }()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_, _ = c.Get(ctx, i)
			}
		})
	}
}

// zipf returns n keys and a power of two of accesses to them.
func zipf(n int) (keys, order []string) {
	for i := range n {
		keys = append(keys, "key-"+strconv.Itoa(i))
	}
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.01, 1, uint64(n-1))
	for range 1 << 16 {
		order = append(order, keys[z.Uint64()])
	}
	return keys, order
}
