package cache_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

// heap is how much is in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestOneOffKeysLeaveNothingBehind loads a million keys once each, and compares the heap with that of a cache that is
// just full.
func TestOneOffKeysLeaveNothingBehind(t *testing.T) {
	const room = 10_000
	payload := func(_ context.Context, _ int) ([]byte, error) { return make([]byte, 256), nil }
	settled := func(c *cache.Cache[int, []byte]) {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for c.Stats().Entries > room {
			<-tick.C
		}
	}
	empty := heap()
	c := open(t, payload, cache.Config{MaxEntries: room})
	get := func(from, to int) uint64 {
		for k := from; k < to; k++ {
			if _, err := c.Get(context.Background(), k); err != nil {
				t.Fatal(err)
			}
		}
		settled(c)
		return heap() - empty
	}
	full := get(0, room)
	after := get(room, 1_000_000)
	t.Logf("full %d KiB, after a million keys %d KiB", full>>10, after>>10)
	require.Greater(t, full, uint64(room*256), "the heap was not measured")
	require.LessOrEqual(t, float64(after), 1.1*float64(full))
	require.LessOrEqual(t, c.Stats().Entries, room)
}

func TestWeightIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, func(_ context.Context, k int) (int, error) { return k % 10, nil },
			cache.Config{MaxWeight: 100}, cache.WithWeight(func(_, v int) int { return v }))
		held := func() (sum int) {
			synctest.Wait()
			for k := range 1000 {
				ctx, cancel := context.WithCancel(t.Context())
				cancel() // only what is there
				if v, err := c.Get(ctx, k); err == nil {
					sum += v
				}
			}
			return sum
		}
		for k := range 1000 {
			_, err := c.Get(t.Context(), k)
			require.NoError(t, err)
		}
		require.LessOrEqual(t, held(), 100)
		require.Greater(t, held(), 50, "hardly anything is kept")
		require.NoError(t, c.Reconfigure(cache.Config{MaxWeight: 20}))
		require.LessOrEqual(t, held(), 20)
		require.Error(t, c.Reconfigure(cache.Config{MaxEntries: 20}))
		require.NoError(t, c.Reconfigure(c.Config()))
	})
}

func TestWeigherThatPanicsIsAnErrorOfTheLoad(t *testing.T) {
	c := open(t, func(_ context.Context, k int) (int, error) { return k, nil },
		cache.Config{MaxWeight: 100}, cache.WithWeight(func(k, _ int) int { return 10 / k }))
	var p *cache.PanicError
	_, err := c.Get(t.Context(), 0)
	require.ErrorAs(t, err, &p)
	v, err := c.Get(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, 1, v)
}

func TestEvictionHookMayCallBack(t *testing.T) {
	type event struct {
		key, value int
		cause      string
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []event
		var c *cache.Cache[int, int]
		var inside atomic.Int64
		ready := make(chan struct{})
		c = cache.New(func(_ context.Context, k int) (int, error) { return -k, nil },
			cache.Config{MaxEntries: 10, TTL: time.Second, TTLJitter: -1},
			cache.WithOnEvict(func(k, v int, cause string) {
				<-ready
				if inside.Add(1) != 1 {
					t.Error("two calls at a time")
				}
				defer inside.Add(-1)
				_ = c.Delete(context.Background(), k)
				_ = c.Stats()
				if k < 1_000_000 { // or each would evict another
					if v, err := c.Get(context.Background(), k+1_000_000); err != nil || v != -k-1_000_000 {
						t.Errorf("got %d, %v", v, err)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				events = append(events, event{k, v, cause})
			}))
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		for range 10 {
			require.NoError(t, c.Set(t.Context(), -1, 1)) // replaced, not evicted
		}
		require.NoError(t, c.Delete(t.Context(), -1))
		close(ready)
		for k := range 100 {
			require.NoError(t, c.Set(t.Context(), k, -k))
		}
		synctest.Wait()
		c.InvalidateAll()
		before := len(events)
		require.GreaterOrEqual(t, before, 90)
		seen := map[int]bool{}
		for _, e := range events {
			require.Equal(t, event{e.key, -e.key, "overflow"}, e)
			require.False(t, seen[e.key] && e.key < 1_000_000, "key %d was reported twice", e.key)
			seen[e.key] = true
		}
		require.NoError(t, c.Set(t.Context(), 7, -7))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Equal(t, event{7, -7, "expired"}, events[before])
	})
}

func TestCloseWaitsForTheEvictionHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int64
		c := cache.New(func(_ context.Context, k int) (int, error) { return k, nil }, cache.Config{MaxEntries: 1},
			cache.WithOnEvict(func(int, int, string) {
				time.Sleep(time.Second)
				if ended.Add(1) == 1 {
					runtime.Goexit() // must not keep Close waiting
				}
			}))
		for k := range 4 {
			require.NoError(t, c.Set(t.Context(), k, k))
			synctest.Wait()
		}
		require.NoError(t, c.Close())
		require.EqualValues(t, 3, ended.Load())
	})
}
