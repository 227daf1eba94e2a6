package rediscache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/cache"
)

// arranged runs a test for each arrangement of a cache with a store.
func arranged[V any](t *testing.T, test func(t *testing.T, arrange func(cache.Store[string, V]) cache.Option)) {
	t.Helper()
	t.Run("store alone", func(t *testing.T) { test(t, cache.WithStore[string, V]) })
	t.Run("two levels", func(t *testing.T) { test(t, cache.WithL2[string, V]) })
}

// node is the cache of one process.
type node[V any] struct {
	*cache.Cache[string, V]
	store *rediscache.Store[string, V]
}

// newNode has a client of its own, and returns once its cache is told of changes.
func newNode[V any](
	t *testing.T, addr string, src *redistest.Source[V], cfg cache.Config,
	arrange func(cache.Store[string, V]) cache.Option,
) node[V] {
	t.Helper()
	s, err := rediscache.New[string, V](dial(t, "redis://"+addr), rediscache.Config{Prefix: "nodes"})
	require.NoError(t, err)
	cfg.StoreTimeout = 5 * time.Second // nothing fails here, however busy the machine
	c := cache.New(src.Load, cfg, arrange(s))
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	_, err = c.Get(t.Context(), "warm")
	require.NoError(t, err)
	if isTiered(c) {
		redistest.Eventually(t, "notices come", func() bool { return s.Stats().NoticesLost > 0 })
	}
	return node[V]{c, s}
}

// isTiered reports whether the cache has a memory.
func isTiered[V any](c *cache.Cache[string, V]) bool { return c.Stats().Entries > 0 }

func TestOneLoadForAllCallersOfTwoNodes(t *testing.T) {
	arranged(t, func(t *testing.T, arrange func(cache.Store[string, string]) cache.Option) {
		srv, src := redistest.Start(t), redistest.NewSource("v")
		a := newNode(t, srv.Addr, src, cache.Config{}, arrange)
		b := newNode(t, srv.Addr, src, cache.Config{}, arrange)
		before := src.Loads.Load()
		release := src.Hold()
		defer release()
		const callers = 200
		var group sync.WaitGroup
		misses := a.Stats().Misses + b.Stats().Misses
		for _, n := range []node[string]{a, b} {
			for range callers {
				group.Go(func() {
					v, err := n.Get(t.Context(), "k")
					assert.NoError(t, err)
					assert.Equal(t, "v", v)
				})
			}
		}
		redistest.Eventually(t, "all callers wait", func() bool {
			return a.Stats().Misses+b.Stats().Misses == misses+2*callers
		})
		release()
		group.Wait()
		require.EqualValues(t, 1, src.Loads.Load()-before)
	})
}

// A load, or a refresh, on one node is older than a write that another has made meanwhile.
func TestAWriteOnOneNodeWinsOverALoadOnAnother(t *testing.T) {
	writes := map[string]func(context.Context, node[string], string, string) error{
		"delete": func(ctx context.Context, n node[string], key, _ string) error { return n.Delete(ctx, key) },
		"set":    func(ctx context.Context, n node[string], key, v string) error { return n.Set(ctx, key, v) },
	}
	arranged(t, func(t *testing.T, arrange func(cache.Store[string, string]) cache.Option) {
		srv, src := redistest.Start(t), redistest.NewSource("old")
		cfg := cache.Config{TTL: time.Hour, TTLJitter: -1, LocalTTL: time.Hour, RefreshAhead: time.Hour - time.Millisecond}
		a := newNode(t, srv.Addr, src, cfg, arrange)
		cfg.RefreshAhead = 0
		b := newNode(t, srv.Addr, src, cfg, arrange)
		for name, write := range writes {
			for _, refresh := range []bool{false, true} {
				key := fmt.Sprintf("%s, refresh %v", name, refresh)
				wins(t, a, b, src, key, refresh, write)
			}
		}
	})
}

func wins(
	t *testing.T, a, b node[string], src *redistest.Source[string], key string, refresh bool,
	write func(context.Context, node[string], string, string) error,
) {
	t.Helper()
	get := func(n node[string]) string {
		v, err := n.Get(t.Context(), key)
		assert.NoError(t, err)
		return v
	}
	if refresh {
		require.Equal(t, "old", get(b), key)
	}
	redistest.Eventually(t, "earlier refreshes have ended", func() bool { return a.Stats().Loading == 0 })
	release := src.Hold()
	defer release()
	before := a.Stats()
	var group sync.WaitGroup
	defer group.Wait()
	redistest.Eventually(t, "a load on the first node has read the source", func() bool {
		group.Go(func() { get(a) })
		select {
		case <-src.Begun():
			return true
		case <-time.After(10 * time.Millisecond):
			return false
		}
	})
	src.Write(key, "new")
	require.NoError(t, write(t.Context(), b, key, "new"), key)
	release()
	require.Equal(t, "new", get(b), key)
	pulse, seen := redistest.NewPulse(t), time.Now()
	redistest.Eventually(t, "the first node sees the write", func() bool { return get(a) == "new" })
	require.Less(t, time.Since(seen), pulse.Bound(time.Second), key)
	redistest.Eventually(t, "the load has been refused", func() bool { return a.Stats().Fenced > before.Fenced && a.Stats().Loading == 0 })
	if refresh {
		require.Greater(t, a.Stats().Refreshes, before.Refreshes, key)
	}
	for range 20 {
		require.Equal(t, "new", get(a), key)
		require.Equal(t, "new", get(b), key)
		e, ok, err := a.store.Get(t.Context(), key)
		require.NoError(t, err)
		require.True(t, ok, key)
		require.Equal(t, "new", e.Value, key)
	}
}

// Only notices keep the memory of the other node true here.
func TestTheOtherNodeSeesEachWriteWithinASecond(t *testing.T) {
	srv, src := redistest.Start(t), redistest.NewSource("0")
	cfg := cache.Config{TTL: time.Hour, LocalTTL: time.Hour}
	a := newNode(t, srv.Addr, src, cfg, cache.WithL2[string, string])
	b := newNode(t, srv.Addr, src, cfg, cache.WithL2[string, string])
	pulse, longest := redistest.NewPulse(t), time.Duration(0)
	for i := 1; i <= 100; i++ {
		hits := a.Stats().Hits
		redistest.Eventually(t, "the memory of the first node holds the key", func() bool {
			_, err := a.Get(t.Context(), "k")
			return err == nil && a.Stats().Hits > hits
		})
		want := strconv.Itoa(i)
		src.Write("k", want)
		if i%2 == 0 {
			require.NoError(t, b.Delete(t.Context(), "k"))
		} else {
			require.NoError(t, b.Set(t.Context(), "k", want))
		}
		start := time.Now()
		redistest.Eventually(t, "the first node sees the write", func() bool {
			v, err := a.Get(t.Context(), "k")
			return err == nil && v == want
		})
		longest = max(longest, time.Since(start))
	}
	require.Less(t, longest, pulse.Bound(time.Second))
}

func TestALoadThatCrashesOnOneNodeHoldsUpNoOther(t *testing.T) {
	for name, crash := range map[string]func(){"panic": func() { panic("bug") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			arranged(t, func(t *testing.T, arrange func(cache.Store[string, string]) cache.Option) {
				srv, src := redistest.Start(t), redistest.NewSource("v")
				b := newNode(t, srv.Addr, src, cache.Config{LoadTimeout: time.Minute}, arrange)
				s := open(t, dial(t, "redis://"+srv.Addr), rediscache.Config{Prefix: "nodes"})
				a := cache.New(func(context.Context, string) (string, error) { crash(); return "", nil },
					cache.Config{LoadTimeout: time.Minute}, arrange(s))
				defer func() { require.NoError(t, a.Close()) }()
				_, err := a.Get(t.Context(), "k")
				var crashed *cache.PanicError
				require.ErrorAs(t, err, &crashed)
				start := time.Now()
				v, err := b.Get(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, "v", v)
				require.Less(t, time.Since(start), 20*time.Second, "the lease was not given back")
			})
		})
	}
}

func TestNothingIsAValueOnEveryNode(t *testing.T) {
	nothing[string](t, "")
	nothing[*int](t, nil)
	nothing(t, []byte{})
	nothing(t, User{})
}

func nothing[V any](t *testing.T, zero V) {
	t.Run(fmt.Sprintf("%T", zero), func(t *testing.T) {
		arranged(t, func(t *testing.T, arrange func(cache.Store[string, V]) cache.Option) {
			srv, src := redistest.Start(t), redistest.NewSource(zero)
			a := newNode(t, srv.Addr, src, cache.Config{}, arrange)
			b := newNode(t, srv.Addr, src, cache.Config{}, arrange)
			before := src.Loads.Load()
			for _, n := range []node[V]{a, b, a} {
				v, err := n.Get(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, zero, v)
			}
			require.EqualValues(t, 1, src.Loads.Load()-before)
		})
	})
}

func TestANodeRemembersWhatAnotherHasNotFound(t *testing.T) {
	arranged(t, func(t *testing.T, arrange func(cache.Store[string, string]) cache.Option) {
		srv, src := redistest.Start(t), redistest.NewSource("")
		cfg := cache.Config{NegativeTTL: time.Hour, LocalTTL: time.Hour}
		a := newNode(t, srv.Addr, src, cfg, arrange)
		b := newNode(t, srv.Addr, src, cfg, arrange)
		src.Fail(cache.ErrNotFound)
		before := src.Loads.Load()
		for _, n := range []node[string]{a, b, a} {
			_, err := n.Get(t.Context(), "k")
			require.ErrorIs(t, err, cache.ErrNotFound)
		}
		require.EqualValues(t, 1, src.Loads.Load()-before)
		require.EqualValues(t, 1, b.Stats().NegativeHits)
		require.NoError(t, b.Set(t.Context(), "k", "now there"))
		redistest.Eventually(t, "the first node sees it", func() bool {
			v, err := a.Get(t.Context(), "k")
			return err == nil && v == "now there"
		})
	})
}

func TestANodeServesStaleWhatAnotherHasLoaded(t *testing.T) {
	arranged(t, func(t *testing.T, arrange func(cache.Store[string, string]) cache.Option) {
		srv, src := redistest.Start(t), redistest.NewSource("v")
		cfg := cache.Config{TTL: 200 * time.Millisecond, TTLJitter: -1, StaleIfError: time.Hour}
		a := newNode(t, srv.Addr, src, cfg, arrange)
		b := newNode(t, srv.Addr, src, cfg, arrange)
		_, err := a.Get(t.Context(), "k")
		require.NoError(t, err)
		src.Fail(redistest.ErrSource)
		var r cache.Result[string]
		redistest.Eventually(t, "the entry is past its TTL", func() bool {
			r, err = b.Lookup(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, "v", r.Value)
			require.Equal(t, r.Age >= cfg.TTL, r.Stale, "%+v", r)
			return r.Age >= cfg.TTL+50*time.Millisecond
		})
		require.NotZero(t, b.Stats().LoadFailures, "the source was not asked")
		_, err = b.Get(t.Context(), "another")
		require.ErrorIs(t, err, redistest.ErrSource)

		src.Fail(cache.ErrNotFound) // is an answer
		redistest.Eventually(t, "the source is asked again", func() bool {
			_, err := b.Get(t.Context(), "k")
			return errors.Is(err, cache.ErrNotFound)
		})
		_, ok, err := a.store.Get(t.Context(), "k")
		require.NoError(t, err)
		require.False(t, ok, "the source has none, and the store has %+v", r)
	})
}
