package cache_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

// BenchmarkWriteBehindSet compares a Set that coalesces onto a pending key with the two parts that it cannot do without: a Set
// of the cache, and a map of what is pending under a lock.
func BenchmarkWriteBehindSet(b *testing.B) {
	const resident = 1000
	keys, order := zipf(resident)
	ctx := context.Background()
	load := func(context.Context, string) (int, error) { return 0, nil }

	plain := cache.New(load, cache.Config{})
	b.Cleanup(func() { _ = plain.Close() })
	var mu sync.Mutex
	pending := map[string]cache.Write[string, int]{}
	behind := cache.NewWriteBehind(load, func(context.Context, []write) error { return nil }, cache.Config{}, cache.WriteBehindConfig{})
	b.Cleanup(func() { require.NoError(b, behind.Close(ctx)) })
	for i, k := range keys {
		_ = plain.Set(ctx, k, i)
	}

	for _, s := range []struct {
		name string
		set  func(key string, i int) error
	}{
		{"floor", func(key string, i int) error {
			mu.Lock()
			pending[key] = cache.Write[string, int]{Key: key, Value: i}
			mu.Unlock()
			return plain.Set(ctx, key, i)
		}},
		{"writebehind", func(key string, i int) error { return behind.Set(ctx, key, i) }},
	} {
		b.Run(s.name+"/serial", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := s.set(order[i&(len(order)-1)], i); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(s.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if err := s.set(order[i&(len(order)-1)], i); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
