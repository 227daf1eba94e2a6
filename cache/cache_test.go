package cache_test

import (
	"context"
	"errors"
	"math"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open makes a cache that is closed with the test.
func open[K comparable, V any](t testing.TB, loader func(context.Context, K) (V, error), cfg cache.Config, opts ...cache.Option) *cache.Cache[K, V] {
	c := cache.New(loader, cfg, opts...)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestOneLoadForAThousandCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := open(t, func(context.Context, string) (int64, error) {
			time.Sleep(20 * time.Millisecond)
			return loads.Add(1), nil
		}, cache.Config{})
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				v, err := c.Get(t.Context(), "k")
				if err != nil || v != 1 {
					t.Errorf("got %d, %v", v, err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, loads.Load())
		s := c.Stats()
		require.EqualValues(t, 1000, s.Hits+s.Misses)
		require.EqualValues(t, 1, s.Loads)
	})
}

// TestNoExtraLoadWhenLoadsAreInstant releases eight callers at each key at once. A loader this short ends while some
// callers are between their look into the store and joining: looking only once would load again. The control shows
// that the barrier does provoke races.
func TestNoExtraLoadWhenLoadsAreInstant(t *testing.T) {
	const callers, keys = 8, 20_000
	if runtime.GOMAXPROCS(0) < 2 {
		require.NotEqual(t, "1", os.Getenv("BACKSTAY_REQUIRE_SERVICES"), "callers cannot race on one processor")
		t.Skip("callers cannot race on one processor: run with GOMAXPROCS=2 or more")
	}
	var loads atomic.Int64
	c := open(t, func(_ context.Context, k int) (int, error) {
		loads.Add(1)
		return k, nil
	}, cache.Config{MaxEntries: 4 * keys})
	stampede(callers, keys, func(k int) {
		if v, err := c.Get(t.Context(), k); err != nil || v != k {
			t.Errorf("key %d: got %d, %v", k, v, err)
		}
	})
	require.EqualValues(t, keys, loads.Load())

	var unprotected sync.Map
	var control atomic.Int64
	stampede(callers, keys, func(k int) {
		if _, ok := unprotected.Load(k); !ok {
			control.Add(1)
			runtime.Gosched() // where the loader is called
			unprotected.Store(k, k)
		}
	})
	require.Greater(t, control.Load(), int64(keys), "the control made no extra load: the barrier proves nothing")
}

// stampede makes the callers meet before each key.
func stampede(callers, keys int, get func(k int)) {
	arrived := make([]atomic.Int64, keys)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for k := range keys {
				arrived[k].Add(1)
				for arrived[k].Load() < int64(callers) {
					runtime.Gosched()
				}
				get(k)
			}
		})
	}
	wg.Wait()
}

func TestFirstCallerCancelledOthersSucceed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type traceKey struct{}
		var loads atomic.Int64
		c := open(t, func(ctx context.Context, _ string) (any, error) {
			loads.Add(1)
			select {
			case <-time.After(time.Second):
				return ctx.Value(traceKey{}), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}, cache.Config{})
		first, cancel := context.WithCancel(context.WithValue(t.Context(), traceKey{}, "trace"))
		results := make(chan error, 10)
		go func() {
			_, err := c.Get(first, "k")
			results <- err
		}()
		synctest.Wait()
		for range 9 {
			go func() {
				v, err := c.Get(t.Context(), "k")
				if v != "trace" {
					t.Errorf("got %v: the load lost the values of the first caller's context", v)
				}
				results <- err
			}()
		}
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-results, context.Canceled)
		for range 9 {
			require.NoError(t, <-results)
		}
		require.EqualValues(t, 1, loads.Load())
	})
}

func TestWaiterObeysItsOwnDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, func(context.Context, string) (int, error) {
			time.Sleep(300 * time.Millisecond)
			return 1, nil
		}, cache.Config{})
		go func() { _, _ = c.Get(t.Context(), "k") }()
		synctest.Wait()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := c.Get(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, cache.ErrLoadTimeout)
		require.Equal(t, 20*time.Millisecond, time.Since(start))
	})
}

func TestEndedContextLoadsNothing(t *testing.T) {
	var loads atomic.Int64
	c := open(t, func(context.Context, string) (int64, error) { return loads.Add(1), nil }, cache.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Get(ctx, "k")
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, loads.Load())

	require.NoError(t, c.Set(t.Context(), "k", 7))
	v, err := c.Get(ctx, "k")
	require.NoError(t, err, "a hit does not wait, so it does not fail")
	require.EqualValues(t, 7, v)
}

func TestLoadTimeoutBoundsTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, func(ctx context.Context, _ string) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}, cache.Config{Name: "slow", LoadTimeout: 2 * time.Second})
		start := time.Now()
		_, err := c.Get(t.Context(), "k")
		require.ErrorIs(t, err, cache.ErrLoadTimeout)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, `cache "slow": load timed out after 2s: context deadline exceeded`)
		require.Equal(t, 2*time.Second, time.Since(start))
		require.EqualValues(t, 1, c.Stats().LoadFailures)
	})
}

func TestLoadTimeoutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, func(ctx context.Context, _ string) (bool, error) {
			time.Sleep(time.Minute)
			_, bounded := ctx.Deadline()
			return bounded, ctx.Err()
		}, cache.Config{LoadTimeout: -1})
		bounded, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.False(t, bounded)
	})
}

func TestPanicIsAnErrorForEveryWaiter(t *testing.T) {
	cause := errors.New("boom")
	for name, crash := range map[string]func(){
		"panic":  func() { panic(cause) },
		"goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var loads atomic.Int64
				c := open(t, func(context.Context, string) (int64, error) {
					time.Sleep(time.Second)
					if loads.Add(1) == 1 {
						crash()
					}
					return 7, nil
				}, cache.Config{Name: "users"})
				results := make(chan error, 10)
				for range cap(results) {
					go func() {
						_, err := c.Get(t.Context(), "k")
						results <- err
					}()
				}
				for range cap(results) {
					err := <-results
					var p *cache.PanicError
					require.ErrorAs(t, err, &p)
					require.Contains(t, string(p.Stack), "TestPanicIsAnErrorForEveryWaiter")
					require.Contains(t, err.Error(), `cache "users": loader `)
					require.Equal(t, name == "panic", errors.Is(err, cause))
				}
				v, err := c.Get(t.Context(), "k")
				require.NoError(t, err)
				require.EqualValues(t, 7, v)
				require.EqualValues(t, 1, c.Stats().LoadFailures)
			})
		})
	}
}

// TestWriteWinsOverOlderLoad begins a load, writes, and lets the load end with what it read before.
func TestWriteWinsOverOlderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := "old"
		c := open(t, func(context.Context, string) (string, error) {
			read := source
			time.Sleep(time.Second)
			return read, nil
		}, cache.Config{})

		begin := func() <-chan string {
			got := make(chan string, 1)
			go func() {
				v, _ := c.Get(t.Context(), "k")
				got <- v
			}()
			synctest.Wait()
			return got
		}

		old := begin()
		source = "new"
		require.NoError(t, c.Delete(t.Context(), "k"))
		fresh := begin()
		require.Equal(t, "old", <-old, "a caller that waited before gets the load it waited for")
		require.Equal(t, "new", <-fresh, "a caller that came after the Delete joined the older load")
		v, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, "new", v, "the older load was stored")

		// Nobody loads between this Delete and the end of the load: only the Delete itself can have voided it.
		require.NoError(t, c.Delete(t.Context(), "k"))
		old = begin()
		source = "newest"
		require.NoError(t, c.Delete(t.Context(), "k"))
		require.Equal(t, "new", <-old)
		v, err = c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, "newest", v, "the older load brought back what Delete removed")

		require.NoError(t, c.Delete(t.Context(), "k"))
		old = begin()
		require.NoError(t, c.Set(t.Context(), "k", "set"))
		require.Equal(t, "newest", <-old)
		v, err = c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, "set", v, "the older load overwrote the Set")
		require.EqualValues(t, 3, c.Stats().Fenced)
	})
}

// TestGetAfterWriteIsNeverOlder races many loads with many writes of few keys. Each writer owns a key, changes the
// source, deletes or sets the entry, and must then read nothing older than what it wrote.
func TestGetAfterWriteIsNeverOlder(t *testing.T) {
	const keys, readers, rounds = 4, 4, 3000
	var source [keys]atomic.Int64
	c := open(t, func(_ context.Context, k int) (int64, error) {
		v := source[k].Load()
		runtime.Gosched()
		return v, nil
	}, cache.Config{})
	var writers, all sync.WaitGroup
	stop := make(chan struct{})
	for r := range readers {
		all.Go(func() {
			for i := r; ; i++ {
				select {
				case <-stop:
					return
				default:
					_, _ = c.Get(t.Context(), i%keys)
				}
			}
		})
	}
	for k := range keys {
		writers.Go(func() {
			for i := range rounds {
				wrote := source[k].Add(1)
				err := error(nil)
				if i%2 == 0 {
					err = c.Delete(t.Context(), k)
				} else {
					err = c.Set(t.Context(), k, wrote)
				}
				v, getErr := c.Get(t.Context(), k)
				if err != nil || getErr != nil || v != wrote {
					t.Errorf("key %d: wrote %d, then read %d; %v, %v", k, wrote, v, err, getErr)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	all.Wait()
}

func TestSlowLoadDelaysNoOtherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, func(_ context.Context, k int) (int, error) {
			if k < 0 {
				time.Sleep(5 * time.Second)
			}
			return k, nil
		}, cache.Config{})
		for k := -200; k < 0; k++ {
			go func() { _, _ = c.Get(t.Context(), k) }()
		}
		synctest.Wait()
		require.Equal(t, 200, c.Stats().Loading)
		start := time.Now()
		for k := range 2000 {
			for range 2 { // a miss, a hit
				v, err := c.Get(t.Context(), k)
				require.NoError(t, err)
				require.Equal(t, k, v)
			}
			require.NoError(t, c.Set(t.Context(), k, k))
			require.NoError(t, c.Delete(t.Context(), k))
		}
		require.Zero(t, time.Since(start))
	})
}

func TestNilAndZeroValuesAreCached(t *testing.T) {
	var loads atomic.Int64
	pointers := open(t, func(context.Context, string) (*int, error) { loads.Add(1); return nil, nil }, cache.Config{})
	numbers := open(t, func(context.Context, string) (int, error) { loads.Add(1); return 0, nil }, cache.Config{})
	anything := open(t, func(context.Context, string) (any, error) { loads.Add(1); return nil, nil }, cache.Config{})
	for range 3 {
		p, err := pointers.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Nil(t, p)
		n, err := numbers.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Zero(t, n)
		a, err := anything.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Nil(t, a)
	}
	require.EqualValues(t, 3, loads.Load())
}

func TestErrorsAreNotCached(t *testing.T) {
	failure := errors.New("source down")
	var loads atomic.Int64
	c := open(t, func(context.Context, string) (int64, error) {
		if n := loads.Add(1); n > 2 {
			return n, nil
		}
		return 99, failure
	}, cache.Config{})
	for range 2 {
		v, err := c.Get(t.Context(), "k")
		require.Same(t, failure, err, "the loader's error is returned as it is")
		require.Zero(t, v)
	}
	v, err := c.Get(t.Context(), "k")
	require.NoError(t, err)
	require.EqualValues(t, 3, v)
	require.EqualValues(t, 2, c.Stats().LoadFailures)
}

func TestHitAllocatesNothing(t *testing.T) {
	c := open(t, func(_ context.Context, k string) (string, error) { return k, nil }, cache.Config{})
	ctx := t.Context()
	_, err := c.Get(ctx, "k")
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = c.Get(ctx, "k") }))
}

func TestTTLIsKept(t *testing.T) {
	const ttl, resolution = time.Second, 10 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := open(t, func(context.Context, string) (int64, error) { return loads.Add(1), nil }, cache.Config{TTL: ttl, TTLJitter: -1})
		get := func() int64 {
			v, err := c.Get(t.Context(), "k")
			require.NoError(t, err)
			return v
		}
		for round := range int64(20) {
			time.Sleep(time.Duration(round) * 700 * time.Microsecond) // off the clock's ticks
			require.Equal(t, round+1, get())
			time.Sleep(ttl - resolution)
			require.Equal(t, round+1, get(), "expired too early")
			time.Sleep(2 * resolution)
			require.Equal(t, round+2, get(), "expired too late")
			require.NoError(t, c.Delete(t.Context(), "k"))
			loads.Store(round + 1)
		}
	})
}

func TestTTLOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := open(t, func(context.Context, string) (int64, error) { return loads.Add(1), nil }, cache.Config{TTL: -1})
		for range 3 {
			v, err := c.Get(t.Context(), "k")
			require.NoError(t, err)
			require.EqualValues(t, 1, v)
			time.Sleep(time.Hour)
		}
	})
}

func TestMaxEntriesIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, func(_ context.Context, k int) (int, error) { return k, nil }, cache.Config{MaxEntries: 100})
		for k := range 1000 {
			_, err := c.Get(t.Context(), k)
			require.NoError(t, err)
		}
		synctest.Wait()
		require.LessOrEqual(t, c.Stats().Entries, 100)
		require.GreaterOrEqual(t, c.Stats().Evictions, uint64(900))

		require.NoError(t, c.Reconfigure(cache.Config{MaxEntries: 10}))
		require.LessOrEqual(t, c.Stats().Entries, 10)
	})
}

func TestCloseCancelsLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Bool
		c := cache.New(func(ctx context.Context, _ string) (int, error) {
			<-ctx.Done()
			time.Sleep(time.Second) // Close waits for this
			ended.Store(true)
			return 0, ctx.Err()
		}, cache.Config{Name: "users", LoadTimeout: -1})
		require.NoError(t, c.Set(t.Context(), "held", 1))
		result := make(chan error, 1)
		go func() {
			_, err := c.Get(t.Context(), "k")
			result <- err
		}()
		synctest.Wait()
		require.NoError(t, c.Close())
		require.True(t, ended.Load())
		require.ErrorIs(t, <-result, cache.ErrClosed)

		_, err := c.Get(t.Context(), "held")
		require.ErrorIs(t, err, cache.ErrClosed)
		require.EqualError(t, err, `cache "users": closed`)
		require.ErrorIs(t, c.Set(t.Context(), "k", 1), cache.ErrClosed)
		require.ErrorIs(t, c.Delete(t.Context(), "k"), cache.ErrClosed)
		require.NoError(t, c.Close())
	})
}

func TestCloseUnderLoad(t *testing.T) {
	c := cache.New(func(_ context.Context, k int) (int, error) { return k, nil }, cache.Config{MaxEntries: 50})
	var wg sync.WaitGroup
	var calls atomic.Int64
	half := make(chan struct{})
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				v, err := c.Get(t.Context(), i%100)
				if errors.Is(err, cache.ErrClosed) {
					return
				}
				if err != nil || v != i%100 {
					t.Errorf("got %d, %v", v, err)
				}
				if i == 500 && w == 0 {
					close(half)
				}
				calls.Add(1)
			}
		})
	}
	<-half
	require.NoError(t, c.Close())
	wg.Wait()
	s := c.Stats()
	require.Zero(t, s.Loading)
	require.GreaterOrEqual(t, s.Hits+s.Misses, uint64(calls.Load()))
}

func TestKeyThatIsNotEqualToItselfIsRefused(t *testing.T) {
	c := open(t, func(context.Context, float64) (int, error) { return 1, nil }, cache.Config{})
	_, err := c.Get(t.Context(), math.NaN())
	require.ErrorIs(t, err, cache.ErrKey)
	require.ErrorIs(t, c.Set(t.Context(), math.NaN(), 1), cache.ErrKey)
	require.NoError(t, c.Delete(t.Context(), math.NaN()))
}
