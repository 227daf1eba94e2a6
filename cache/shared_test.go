package cache_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

// shared are the arrangements with a store.
var shared = map[string]func(cache.Store[string, int]) cache.Option{
	"store": cache.WithStore[string, int], "tiered": cache.WithL2[string, int],
}

func counting(loads *atomic.Int64, slow time.Duration) func(context.Context, string) (int, error) {
	return func(context.Context, string) (int, error) {
		n := loads.Add(1)
		time.Sleep(slow)
		return int(n), nil
	}
}

func TestOneLoadForTwoNodes(t *testing.T) {
	for name, with := range shared {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var loads atomic.Int64
				s := newFakeStore[string, int]()
				results := make(chan int)
				for range 2 {
					c := open(t, counting(&loads, time.Second), cache.Config{}, with(s))
					for range 50 {
						go func() {
							v, _ := c.Get(t.Context(), "k")
							results <- v
						}()
					}
				}
				start := time.Now()
				for range 100 {
					require.Equal(t, 1, <-results)
				}
				require.EqualValues(t, 1, loads.Load())
				require.Less(t, time.Since(start), time.Second+100*time.Millisecond, "the other node asks too seldom")
			})
		})
	}
}

func TestGetLoadsWhileTheStoreIsDown(t *testing.T) {
	for name, with := range shared {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var loads atomic.Int64
				s := newFakeStore[string, int]()
				c := open(t, counting(&loads, time.Second), cache.Config{Name: "users"}, with(s))
				s.setDown(true)
				results := make(chan int)
				for range 10 {
					go func() {
						v, err := c.Get(t.Context(), "k")
						if err != nil {
							t.Error(err)
						}
						results <- v
					}()
				}
				for range 10 {
					require.Equal(t, 1, <-results)
				}
				require.EqualValues(t, 1, loads.Load(), "still one load")
				require.Positive(t, c.Stats().StoreFailures)

				err := c.Set(t.Context(), "k", 10)
				require.ErrorIs(t, err, cache.ErrStore)
				require.ErrorContains(t, err, `cache "users": store failed: `)
				require.ErrorIs(t, c.Delete(t.Context(), "k"), cache.ErrStore)
				v, err := c.Get(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, 2, v, "the memory kept what the Delete was to remove")

				s.setDown(false)
				time.Sleep(time.Minute)
				for range 3 {
					v, err = c.Get(t.Context(), "k")
					require.NoError(t, err)
					require.Equal(t, 3, v)
				}
			})
		})
	}
}

func TestMemoryServesWhileTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		s := newFakeStore[string, int]()
		c := open(t, counting(&loads, 0), cache.Config{LocalTTL: time.Second}, cache.WithL2(s))
		s.setDown(true)
		get := func() int {
			v, err := c.Get(t.Context(), "k")
			require.NoError(t, err)
			return v
		}
		require.Equal(t, 1, get())
		require.Equal(t, 1, get(), "what was loaded without the store was not kept in memory")
		time.Sleep(time.Second + 11*time.Millisecond)
		require.Equal(t, 2, get(), "it was kept for longer than LocalTTL")
	})
}

func TestFillThatFailsIsNoFailureOfGet(t *testing.T) {
	for name, with := range shared {
		t.Run(name, func(t *testing.T) {
			s := newFakeStore[string, int]()
			c := open(t, func(context.Context, string) (int, error) {
				s.setDown(true)
				return 1, nil
			}, cache.Config{}, with(s))
			v, err := c.Get(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, 1, v)
			require.Positive(t, c.Stats().StoreFailures)
			require.Zero(t, c.Stats().Entries, "the store may have refused it")
		})
	}
}

// A lease that is not given back would keep other processes from loading until it lapses.
func TestFailedLoadReleasesTheLease(t *testing.T) {
	for name, with := range shared {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFakeStore[string, int]()
				crash := func(context.Context) error { return errSource }
				c := open(t, func(ctx context.Context, _ string) (int, error) { return 0, crash(ctx) }, cache.Config{}, with(s))
				other := open(t, func(context.Context, string) (int, error) { return 7, nil }, cache.Config{}, with(s))
				for _, crash = range []func(context.Context) error{
					func(context.Context) error { return errSource },
					func(context.Context) error { return cache.ErrNotFound },
					func(context.Context) error { panic("boom") },
					func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
				} {
					_, err := c.Get(t.Context(), "k")
					require.Error(t, err)
					start := time.Now()
					v, err := other.Get(t.Context(), "k")
					require.NoError(t, err)
					require.Equal(t, 7, v)
					require.Zero(t, time.Since(start), "the lease was kept")
					require.NoError(t, other.Delete(t.Context(), "k"))
					c.InvalidateAll()
				}
				require.Equal(t, 4, s.count("Release"))
				require.Zero(t, c.Stats().StoreFailures, "a lease was released on a context that had ended")
			})
		})
	}
}

func TestStoreThatPanicsIsAnError(t *testing.T) {
	for _, op := range []string{"Get", "Lease", "Fill"} {
		t.Run(op, func(t *testing.T) {
			s := newFakeStore[string, int]()
			c := open(t, func(context.Context, string) (int, error) { return 1, nil }, cache.Config{}, cache.WithL2(s))
			s.before = func(called string, _ string) {
				if called == op {
					panic("boom")
				}
			}
			var p *cache.PanicError
			_, err := c.Get(t.Context(), "k")
			require.ErrorAs(t, err, &p)
			require.Zero(t, c.Stats().Loading)
		})
	}
}

// TestDeadProcessDelaysALoadUntilItsLeaseLapses takes a lease and does nothing with it.
func TestDeadProcessDelaysALoadUntilItsLeaseLapses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		s := newFakeStore[string, int]()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := s.Lease(ctx, "k", 0)
		require.NoError(t, err)
		c := open(t, counting(&loads, 0), cache.Config{LoadTimeout: time.Second}, cache.WithL2(s))
		_, err = c.Get(t.Context(), "k")
		require.ErrorIs(t, err, cache.ErrLoadTimeout)
		require.Zero(t, loads.Load())
		start := time.Now()
		require.NoError(t, c.Reconfigure(cache.Config{LoadTimeout: time.Minute}))
		v, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, 1, v)
		require.Less(t, time.Since(start), time.Second+100*time.Millisecond)
	})
}

func TestLocalTTLBoundsHowLongAnOldCopyIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		s := newFakeStore[string, int]()
		nodes := [2]*cache.Cache[string, int]{}
		for i := range nodes {
			nodes[i] = open(t, counting(&loads, 0), cache.Config{LocalTTL: time.Second}, cache.WithL2(s))
		}
		get := func(n int) int {
			v, err := nodes[n].Get(t.Context(), "k")
			require.NoError(t, err)
			return v
		}
		require.Equal(t, []int{1, 1}, []int{get(0), get(1)})
		asked := s.count("Get")
		require.NoError(t, nodes[0].Set(t.Context(), "k", 10))
		require.Equal(t, 10, get(0))
		time.Sleep(time.Second - time.Millisecond)
		require.Equal(t, 1, get(1), "memory is asked first")
		require.Equal(t, asked, s.count("Get"))
		time.Sleep(12 * time.Millisecond)
		require.Equal(t, 10, get(1))
		require.EqualValues(t, 1, loads.Load())
	})
}

func TestWatchedChangeDropsTheCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		s := &watchedStore[string, int]{fakeStore: newFakeStore[string, int](), lost: make(chan struct{})}
		nodes := [2]*cache.Cache[string, int]{}
		for i := range nodes {
			nodes[i] = open(t, counting(&loads, 0), cache.Config{LocalTTL: -1}, cache.WithL2[string, int](s))
		}
		get := func(n int) int {
			v, err := nodes[n].Get(t.Context(), "k")
			require.NoError(t, err)
			synctest.Wait()
			return v
		}
		synctest.Wait()
		require.Equal(t, []int{1, 1, 1, 1}, []int{get(0), get(0), get(1), get(1)})
		require.NoError(t, nodes[0].Set(t.Context(), "k", 10))
		synctest.Wait()
		require.Equal(t, []int{10, 10}, []int{get(0), get(1)})

		asked := s.count("Get")
		require.Equal(t, []int{10, 10}, []int{get(0), get(1)})
		require.Equal(t, asked, s.count("Get"), "memory is not asked first")
		for range nodes {
			s.lost <- struct{}{}
		}
		synctest.Wait()
		require.Equal(t, []int{10, 10}, []int{get(0), get(1)})
		require.Equal(t, asked+2, s.count("Get"), "a copy outlived the loss of notices")
		require.EqualValues(t, 1, loads.Load())
	})
}

func TestStoreAloneIsAskedEveryTime(t *testing.T) {
	var loads atomic.Int64
	s := newFakeStore[string, int]()
	c := open(t, counting(&loads, 0), cache.Config{}, cache.WithStore(s))
	for range 3 {
		v, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, 1, v)
	}
	require.Equal(t, []int{3, 1, 1}, []int{s.count("Get"), s.count("Lease"), s.count("Fill")})
	require.EqualValues(t, 2, c.Stats().Hits)
	require.Zero(t, c.Stats().Entries)
}

// TestStoreCallsAreBounded lets a store hang.
func TestStoreCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := hangingStore{newFakeStore[string, int]()}
		c := open(t, func(context.Context, string) (int, error) { return 1, nil },
			cache.Config{StoreTimeout: time.Second}, cache.WithStore[string, int](s))
		start := time.Now()
		require.ErrorIs(t, c.Set(t.Context(), "k", 1), cache.ErrStore)
		require.LessOrEqual(t, time.Since(start), time.Second)
	})
}

type hangingStore struct{ *fakeStore[string, int] }

func (hangingStore) Set(ctx context.Context, _ string, _ cache.Entry[int]) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestEntryIsHandedToTheStoreWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore[string, int]()
		c := open(t, func(_ context.Context, k string) (int, error) {
			time.Sleep(time.Second)
			if k == "none" {
				return 0, cache.ErrNotFound
			}
			return 1, nil
		}, cache.Config{TTL: time.Minute, TTLJitter: -1, StaleIfError: time.Hour, NegativeTTL: 2 * time.Second}, cache.WithL2(s))
		_, _ = c.Get(t.Context(), "k")
		_, _ = c.Get(t.Context(), "none")
		require.NoError(t, c.Set(t.Context(), "set", 2))
		held := map[string]cache.Entry[int]{}
		for k, e := range s.held {
			e.Version = 0
			held[k] = e.Entry
		}
		require.Equal(t, map[string]cache.Entry[int]{
			"k":    {Value: 1, TTL: time.Minute, Keep: time.Hour, Cost: time.Second},
			"set":  {Value: 2, TTL: time.Minute, Keep: time.Hour},
			"none": {Absent: true, TTL: 2 * time.Second},
		}, held)
	})
}
