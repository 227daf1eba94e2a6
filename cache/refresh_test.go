package cache_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

var errSource = errors.New("source failed")

func TestRefreshAheadServesTheOldValueMeanwhile(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &source{value: "one", slow: time.Second}
				cfg := cache.Config{TTL: time.Minute, TTLJitter: -1, RefreshAhead: 20 * time.Second, LocalTTL: -1}
				c := open(t, src.load, cfg, a.opts()...)
				get := func() string {
					v, err := c.Get(t.Context(), "k")
					require.NoError(t, err)
					return v
				}
				require.Equal(t, "one", get())
				src.set("two")
				time.Sleep(39 * time.Second)
				start := time.Now()
				require.Equal(t, "one", get())
				synctest.Wait()
				require.Zero(t, c.Stats().Refreshes, "too early")

				time.Sleep(2 * time.Second)
				for range 5 {
					require.Equal(t, "one", get())
				}
				require.Equal(t, 2*time.Second, time.Since(start), "a reader waited for the refresh")
				time.Sleep(2 * time.Second)
				require.Equal(t, "two", get())
				require.Equal(t, 2, src.loads)
				require.EqualValues(t, 1, c.Stats().Refreshes)
				time.Sleep(30 * time.Second)
				require.Equal(t, "two", get(), "the refresh has begun a TTL of its own")
				require.Equal(t, 2, src.loads)
			})
		})
	}
}

// TestFailingRefreshLeavesTheSourceAlone reads a key every millisecond while its refresh fails.
func TestFailingRefreshLeavesTheSourceAlone(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var failing atomic.Bool
				var calls atomic.Int64
				cfg := cache.Config{TTL: time.Minute, TTLJitter: -1, RefreshAhead: 30 * time.Second, LocalTTL: -1}
				c := open(t, func(context.Context, string) (string, error) {
					calls.Add(1)
					if failing.Load() {
						return "", errSource
					}
					return "v", nil
				}, cfg, a.opts()...)
				read := func(d time.Duration) int64 {
					before := calls.Load()
					for range int(d / time.Millisecond) {
						v, err := c.Get(t.Context(), "k")
						require.NoError(t, err)
						require.Equal(t, "v", v)
						time.Sleep(time.Millisecond)
					}
					return calls.Load() - before
				}
				read(10 * time.Millisecond)
				failing.Store(true)
				time.Sleep(31 * time.Second)
				early := read(250 * time.Millisecond)
				require.GreaterOrEqual(t, early, int64(2), "it was not tried again")
				require.LessOrEqual(t, early, int64(5))
				require.LessOrEqual(t, read(10*time.Second), int64(7), "the delay does not grow")
				failing.Store(false)
				require.EqualValues(t, 1, read(20*time.Second), "it did not recover, or went on")
			})
		})
	}
}

// TestStaleIfErrorHasAHardBound checks both ends of the bound to the millisecond.
func TestStaleIfErrorHasAHardBound(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var failing atomic.Bool
				var calls atomic.Int64
				cfg := cache.Config{TTL: time.Second, TTLJitter: -1, StaleIfError: 3 * time.Second, RetryDelay: -1}
				c := open(t, func(context.Context, string) (string, error) {
					calls.Add(1)
					if failing.Load() {
						return "", errSource
					}
					return "v", nil
				}, cfg, a.opts()...)
				r, err := c.Lookup(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, cache.Result[string]{Value: "v"}, r)
				failing.Store(true)
				time.Sleep(700 * time.Millisecond)
				r, err = c.Lookup(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, cache.Result[string]{Value: "v", Age: 700 * time.Millisecond}, r)

				time.Sleep(800 * time.Millisecond)
				r, err = c.Lookup(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, cache.Result[string]{Value: "v", Stale: true, Age: 1500 * time.Millisecond}, r)
				require.EqualValues(t, 2, calls.Load(), "the source was not asked first")

				time.Sleep(2499 * time.Millisecond)
				v, err := c.Get(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, "v", v)
				require.EqualValues(t, 2, c.Stats().StaleServed)
				time.Sleep(time.Millisecond)
				_, err = c.Get(t.Context(), "k")
				require.Same(t, errSource, err)
				require.EqualValues(t, 2, c.Stats().StaleServed)

				failing.Store(false)
				r, err = c.Lookup(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, cache.Result[string]{Value: "v"}, r)
			})
		})
	}
}

func TestWithoutStaleIfErrorAnExpiredEntryIsGone(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var failing atomic.Bool
				c := open(t, func(context.Context, string) (string, error) {
					if failing.Load() {
						return "", errSource
					}
					return "v", nil
				}, cache.Config{TTL: time.Second, TTLJitter: -1}, a.opts()...)
				_, err := c.Get(t.Context(), "k")
				require.NoError(t, err)
				failing.Store(true)
				time.Sleep(time.Second + 20*time.Millisecond)
				_, err = c.Get(t.Context(), "k")
				require.Same(t, errSource, err)
			})
		})
	}
}

// TestStaleEntryIsServedAtOnceDuringBackoff counts the calls of a source that takes a second to fail.
func TestStaleEntryIsServedAtOnceDuringBackoff(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				cfg := cache.Config{
					TTL: time.Second, TTLJitter: -1, StaleIfError: time.Hour, RetryDelay: 10 * time.Second, LocalTTL: -1,
				}
				opts := a.opts()
				cfg.TTL = time.Minute
				c := open(t, func(context.Context, string) (string, error) {
					if calls.Add(1) > 1 {
						time.Sleep(time.Second)
						return "", errSource
					}
					return "v", nil
				}, cfg, opts...)
				lookup := func() (bool, time.Duration) {
					start := time.Now()
					r, err := c.Lookup(t.Context(), "k")
					require.NoError(t, err)
					return r.Stale, time.Since(start)
				}
				lookup()
				time.Sleep(2 * time.Minute)
				stale, took := lookup()
				require.True(t, stale)
				require.Equal(t, time.Second, took, "the source is asked first")
				for range 9 {
					stale, took = lookup()
					require.True(t, stale)
					require.Zero(t, took, "the source was asked again")
					time.Sleep(time.Second)
				}
				require.EqualValues(t, 2, calls.Load())
				time.Sleep(7 * time.Second)
				_, took = lookup()
				require.Equal(t, time.Second, took, "the source was not asked again")

				require.NoError(t, c.Delete(t.Context(), "k"))
				_, err := c.Get(t.Context(), "k")
				require.Same(t, errSource, err, "a deleted entry was served")
			})
		})
	}
}

func TestStaleEntryIsServedWhenTheLoadTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hang atomic.Bool
		c := open(t, func(ctx context.Context, _ string) (string, error) {
			if hang.Load() {
				<-ctx.Done()
				return "", ctx.Err()
			}
			return "v", nil
		}, cache.Config{TTL: time.Second, StaleIfError: time.Hour, LoadTimeout: 2 * time.Second})
		_, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		hang.Store(true)
		time.Sleep(time.Minute)
		start := time.Now()
		r, err := c.Lookup(t.Context(), "k")
		require.NoError(t, err)
		require.True(t, r.Stale)
		require.Equal(t, 2*time.Second, time.Since(start))

		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Get(ctx, "k")
		require.Equal(t, context.DeadlineExceeded, err, "the end of a caller's context is no failure of the source")
	})
}

// seeded is a random sequence that is the same each time.
func seeded() func() float64 {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(1, 2))
	return func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return r.Float64()
	}
}

// TestEarlyRefreshFollowsTheFormula reads entries once, each at a time that is x loads before the end of its TTL, and
// compares how many are refreshed with P(-β·δ·ln(u) ≥ xδ) = exp(-x/β).
func TestEarlyRefreshFollowsTheFormula(t *testing.T) {
	const entries, cost = 4000, 100 * time.Millisecond
	for _, beta := range []float64{1, 2} {
		for _, x := range []float64{0.5, 1, 3} {
			synctest.Test(t, func(t *testing.T) {
				c := open(t, func(_ context.Context, k int) (int, error) {
					time.Sleep(cost)
					return k, nil
				}, cache.Config{TTL: time.Minute, TTLJitter: -1, EarlyRefresh: beta})
				c.SetRandom(seeded())
				done := make(chan struct{})
				for k := range entries {
					go func() {
						_, _ = c.Get(t.Context(), k)
						done <- struct{}{}
					}()
				}
				for range entries {
					<-done
				}
				time.Sleep(time.Minute - time.Duration(x*float64(cost)))
				for k := range entries {
					_, err := c.Get(t.Context(), k)
					require.NoError(t, err)
				}
				got := float64(c.Stats().Refreshes) / entries
				want := math.Exp(-x / beta)
				require.InDelta(t, want, got, 4*math.Sqrt(want*(1-want)/entries), "β %v, %v loads before the end", beta, x)
			})
		}
	}
}

// Outside of its window, early refresh must cost a hit nothing.
func TestEarlyRefreshIsNotConsideredLongBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		var wanted atomic.Bool
		c := open(t, func(context.Context, string) (int, error) {
			time.Sleep(100 * time.Millisecond)
			return 1, nil
		}, cache.Config{TTL: time.Minute, TTLJitter: -1, EarlyRefresh: 1})
		c.SetRandom(func() float64 {
			asked.Add(1)
			if wanted.Load() {
				return 0.999999999
			}
			return 0
		})
		get := func() {
			_, err := c.Get(t.Context(), "k")
			require.NoError(t, err)
		}
		for range 57 {
			get()
			time.Sleep(time.Second)
		}
		require.Zero(t, asked.Load())
		time.Sleep(2 * time.Second)
		get()
		require.EqualValues(t, 1, asked.Load())

		wanted.Store(true)
		for range 10 { // the first begins a refresh
			get()
		}
		require.EqualValues(t, 1, c.Stats().Refreshes)
		require.EqualValues(t, 2, asked.Load(), "hits have something to do while the refresh runs")
	})
}

// TestJitterShortensWithinItsBounds watches a thousand entries expire.
func TestJitterShortensWithinItsBounds(t *testing.T) {
	const entries = 1000
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := open(t, func(context.Context, int) (int, error) { loads.Add(1); return 1, nil },
			cache.Config{TTL: 10 * time.Second, TTLJitter: 0.5})
		c.SetRandom(seeded())
		for k := range entries {
			require.NoError(t, c.Set(t.Context(), k, 0))
		}
		expired := func() int64 {
			for k := range entries {
				_, err := c.Get(t.Context(), k)
				require.NoError(t, err)
			}
			return loads.Load()
		}
		time.Sleep(5*time.Second - time.Millisecond)
		require.Zero(t, expired(), "shortened by more than half")
		time.Sleep(2500 * time.Millisecond)
		require.InDelta(t, entries/2, expired(), 100, "not spread evenly")
		// Those that were loaded in the middle live for five seconds at least.
		time.Sleep(2499*time.Millisecond + 11*time.Millisecond)
		require.EqualValues(t, entries, expired(), "one lived for longer than the TTL")
	})
}

func TestNoJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := open(t, func(context.Context, int) (int, error) { loads.Add(1); return 1, nil },
			cache.Config{TTL: 10 * time.Second, TTLJitter: -1})
		for k := range 1000 {
			require.NoError(t, c.Set(t.Context(), k, 0))
		}
		time.Sleep(10*time.Second - time.Millisecond)
		for k := range 1000 {
			_, err := c.Get(t.Context(), k)
			require.NoError(t, err)
		}
		require.Zero(t, loads.Load())
	})
}
