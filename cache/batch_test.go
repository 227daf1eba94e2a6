package cache_test

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

// warehouse is a source of two values per key that can be loaded one by one or many at a time.
type warehouse struct {
	mu      sync.Mutex
	singles []string
	batches [][]string
	fail    func(keys []string) error
	slow    time.Duration
}

func (w *warehouse) load(_ context.Context, k string) (string, error) {
	w.mu.Lock()
	w.singles = append(w.singles, k)
	w.mu.Unlock()
	time.Sleep(w.slow)
	if k == "none" {
		return "", cache.ErrNotFound
	}
	return "value of " + k, w.err([]string{k})
}

func (w *warehouse) loadAll(_ context.Context, keys []string) (map[string]string, error) {
	w.mu.Lock()
	w.batches = append(w.batches, slices.Sorted(slices.Values(keys)))
	w.mu.Unlock()
	time.Sleep(w.slow)
	values := map[string]string{}
	for _, k := range keys {
		if k != "none" {
			values[k] = "value of " + k
		}
	}
	return values, w.err(keys)
}

func (w *warehouse) err(keys []string) error {
	if w.fail == nil {
		return nil
	}
	return w.fail(keys)
}

func TestGetAllLoadsWhatIsMissingByOneCall(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &warehouse{slow: time.Second}
				c := open(t, w.load, cache.Config{NegativeTTL: time.Hour}, append(a.opts(), cache.WithBatchLoader(w.loadAll))...)
				require.NoError(t, c.Set(t.Context(), "held", "set"))
				go func() { _, _ = c.Get(t.Context(), "loading") }()
				time.Sleep(500 * time.Millisecond)

				start := time.Now()
				for i := range 2 {
					got, err := c.GetAll(t.Context(), []string{"a", "held", "b", "loading", "none", "a"})
					require.NoError(t, err)
					require.Equal(t, map[string]string{
						"a": "value of a", "b": "value of b", "held": "set", "loading": "value of loading",
					}, got)
					require.Equal(t, [][]string{{"a", "b", "none"}}, w.batches, "round %d", i)
				}
				require.LessOrEqual(t, time.Since(start), time.Second+100*time.Millisecond)
				require.Equal(t, []string{"loading"}, w.singles, "a key that is being loaded is waited for")
				require.EqualValues(t, 2, c.Stats().Loads)
				_, err := c.Get(t.Context(), "none")
				require.ErrorIs(t, err, cache.ErrNotFound)
				require.Len(t, w.singles, 1, "that there is none was not remembered")
			})
		})
	}
}

func TestGetAllWithoutABatchLoaderLoadsSixteenAtATime(t *testing.T) {
	for _, background := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var running, most atomic.Int64
			c := open(t, func(_ context.Context, k int) (int, error) {
				n := running.Add(1)
				defer running.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(time.Second)
				if k == 7 {
					return 0, cache.ErrNotFound
				}
				return -k, nil
			}, cache.Config{})
			ctx := t.Context()
			if background {
				ctx = context.Background()
			}
			keys := make([]int, 64)
			for i := range keys {
				keys[i] = i
			}
			start := time.Now()
			got, err := c.GetAll(ctx, keys)
			require.NoError(t, err)
			require.Len(t, got, 63)
			require.Equal(t, -8, got[8])
			require.NotContains(t, got, 7)
			require.EqualValues(t, 16, most.Load())
			require.Equal(t, 4*time.Second, time.Since(start))
		})
	}
}

func TestGetAllReturnsWhatItFoundBesideTheErrors(t *testing.T) {
	for name, opts := range map[string][]cache.Option{"single": nil, "batch": {cache.WithBatchLoader((&warehouse{fail: failing}).loadAll)}} {
		t.Run(name, func(t *testing.T) {
			c := open(t, (&warehouse{fail: failing}).load, cache.Config{}, opts...)
			require.NoError(t, c.Set(t.Context(), "held", "set"))
			got, err := c.GetAll(t.Context(), []string{"held", "bad"})
			require.ErrorIs(t, err, errSource)
			require.Equal(t, map[string]string{"held": "set"}, got)
			require.EqualValues(t, 1, c.Stats().LoadFailures)
			got, err = c.GetAll(t.Context(), []string{"bad", "worse", "held"})
			require.Equal(t, map[string]string{"held": "set"}, got)
			require.EqualError(t, err, errSource.Error(), "the error of many keys is reported once")
		})
	}
}

func failing(keys []string) error {
	if slices.Contains(keys, "bad") || slices.Contains(keys, "worse") {
		return errSource
	}
	return nil
}

func TestGetAllServesStaleEntriesWhenTheBatchFails(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &warehouse{}
				c := open(t, w.load, cache.Config{TTL: time.Minute, StaleIfError: time.Hour, RetryDelay: 10 * time.Second},
					append(a.opts(), cache.WithBatchLoader(w.loadAll))...)
				_, err := c.GetAll(t.Context(), []string{"a", "b"})
				require.NoError(t, err)
				time.Sleep(2 * time.Minute)
				w.fail = func([]string) error { return errSource }
				for range 3 {
					got, err := c.GetAll(t.Context(), []string{"a", "b"})
					require.NoError(t, err)
					require.Equal(t, []string{"a", "b"}, slices.Sorted(maps.Keys(got)))
				}
				require.Len(t, w.batches, 2, "the source was not left alone")
				require.EqualValues(t, 6, c.Stats().StaleServed)
			})
		})
	}
}

func TestBatchThatPanicsIsAnErrorForEveryWaiter(t *testing.T) {
	for name, crash := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
		for _, a := range arrangements {
			t.Run(name+"/"+a.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := &warehouse{slow: time.Second}
					first := true
					c := open(t, w.load, cache.Config{}, append(a.opts(), cache.WithBatchLoader(
						func(ctx context.Context, keys []string) (map[string]string, error) {
							v, err := w.loadAll(ctx, keys)
							if first {
								first = false
								crash()
							}
							return v, err
						}))...)
					synctest.Wait() // it listens for changes
					joined := make(chan error, 1)
					go func() {
						time.Sleep(500 * time.Millisecond)
						_, err := c.Get(t.Context(), "a")
						joined <- err
					}()
					got, err := c.GetAll(t.Context(), []string{"a", "b"})
					var p *cache.PanicError
					require.ErrorAs(t, err, &p)
					require.Empty(t, got)
					require.ErrorAs(t, <-joined, &p)
					got, err = c.GetAll(t.Context(), []string{"a", "b"})
					require.NoError(t, err)
					require.Len(t, got, 2)
				})
			})
		}
	}
}

func TestLoaderThatEndsAWorkerOfGetAllIsAnError(t *testing.T) {
	c := open(t, func(context.Context, string) (string, error) { runtime.Goexit(); return "", nil }, cache.Config{})
	got, err := c.GetAll(context.Background(), []string{"a", "b"})
	var p *cache.PanicError
	require.ErrorAs(t, err, &p)
	require.Empty(t, got)
}

func TestGetAllObeysItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &warehouse{slow: time.Hour}
		for _, opts := range [][]cache.Option{nil, {cache.WithBatchLoader(w.loadAll)}} {
			c := cache.New(w.load, cache.Config{}, opts...)
			require.NoError(t, c.Set(t.Context(), "held", "set"))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			got, err := c.GetAll(ctx, []string{"a", "b", "held"})
			require.Equal(t, time.Second, time.Since(start))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, map[string]string{"held": "set"}, got)
			cancel()
			require.NoError(t, c.Close())
			_, err = c.GetAll(t.Context(), []string{"held"})
			require.ErrorIs(t, err, cache.ErrClosed)
		}
	})
}

// TestDeleteDuringBatchWins is the fence for a batch.
func TestDeleteDuringBatchWins(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var version atomic.Int64
				c := open(t, func(context.Context, string) (string, error) { return "new", nil }, cache.Config{},
					append(a.opts(), cache.WithBatchLoader(func(_ context.Context, keys []string) (map[string]string, error) {
						v := strconv.FormatInt(version.Load(), 10)
						time.Sleep(time.Second)
						return map[string]string{keys[0]: v, keys[1]: v}, nil
					}))...)
				done := make(chan error)
				go func() {
					_, err := c.GetAll(t.Context(), []string{"a", "b"})
					done <- err
				}()
				synctest.Wait()
				version.Add(1)
				require.NoError(t, c.Delete(t.Context(), "a"))
				require.NoError(t, <-done)
				a, errA := c.Get(t.Context(), "a")
				b, errB := c.Get(t.Context(), "b")
				require.NoError(t, errors.Join(errA, errB))
				require.Equal(t, []string{"new", "0"}, []string{a, b})
			})
		})
	}
}
