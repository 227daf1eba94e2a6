package cache_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

func openAside(t testing.TB, cfg cache.Config, opts ...cache.Option) *cache.Aside[string, string] {
	a := cache.NewAside[string, string](cfg, opts...)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

func begin(t testing.TB, a *cache.Aside[string, string], key string) cache.Lease[string] {
	g, err := a.Begin(t.Context(), key)
	require.NoError(t, err)
	require.NotNil(t, g.Lease)
	return g.Lease
}

func TestAsideIsFilledByTheApplication(t *testing.T) {
	for _, arr := range arrangements {
		t.Run(arr.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := openAside(t, cache.Config{TTL: time.Minute, TTLJitter: -1, NegativeTTL: time.Second}, arr.opts()...)
				synctest.Wait()
				get := func(k string) (string, bool, error) { return a.Get(t.Context(), k) }
				v, ok, err := get("k")
				require.NoError(t, err)
				require.False(t, ok)
				require.Empty(t, v)

				l := begin(t, a, "k")
				kept, err := l.Fill(t.Context(), cache.Entry[string]{Value: "v"})
				require.NoError(t, err)
				require.True(t, kept)
				kept, err = l.Fill(t.Context(), cache.Entry[string]{Value: "twice"})
				require.NoError(t, err)
				require.False(t, kept, "a lease fills once")
				require.NoError(t, l.Release(t.Context()))
				for range 2 {
					v, ok, err = get("k")
					require.NoError(t, err)
					require.True(t, ok)
					require.Equal(t, "v", v)
				}
				g, err := a.Begin(t.Context(), "k")
				require.NoError(t, err)
				require.True(t, g.Found)
				require.Equal(t, "v", g.Entry.Value)

				_, err = begin(t, a, "short").Fill(t.Context(), cache.Entry[string]{Value: "s", TTL: 2 * time.Second})
				require.NoError(t, err)
				_, err = begin(t, a, "none").Fill(t.Context(), cache.Entry[string]{Absent: true})
				require.NoError(t, err)
				_, ok, err = get("none")
				require.ErrorIs(t, err, cache.ErrNotFound)
				require.False(t, ok)
				time.Sleep(2*time.Second - time.Millisecond)
				_, ok, err = get("none")
				require.NoError(t, err, "the lack was remembered for longer than NegativeTTL")
				require.False(t, ok)
				_, ok, _ = get("short")
				require.True(t, ok)
				time.Sleep(12 * time.Millisecond)
				_, ok, _ = get("short")
				require.False(t, ok, "the entry's own TTL was not kept")
				time.Sleep(time.Minute)
				_, ok, _ = get("k")
				require.False(t, ok)
			})
		})
	}
}

// TestAsideWriteVoidsTheLease is the fence: the application has read the old value, and fills after a write.
func TestAsideWriteVoidsTheLease(t *testing.T) {
	for _, arr := range arrangements {
		for name, write := range map[string]func(a *cache.Aside[string, string]) error{
			"set":    func(a *cache.Aside[string, string]) error { return a.Set(t.Context(), "k", "new") },
			"delete": func(a *cache.Aside[string, string]) error { return a.Delete(t.Context(), "k") },
		} {
			t.Run(arr.name+"/"+name, func(t *testing.T) {
				opts := arr.opts()
				loading := openAside(t, cache.Config{}, opts...)
				writing := loading
				if arr.nodes == 2 {
					writing = openAside(t, cache.Config{}, opts...)
				}
				l := begin(t, loading, "k")
				require.NoError(t, write(writing))
				kept, err := l.Fill(t.Context(), cache.Entry[string]{Value: "old"})
				require.NoError(t, err)
				require.False(t, kept)
				for _, a := range []*cache.Aside[string, string]{loading, writing} {
					v, ok, err := a.Get(t.Context(), "k")
					require.NoError(t, err)
					require.Equal(t, name == "set", ok)
					require.NotEqual(t, "old", v)
				}
			})
		}
	}
}

// TestAsideOneLoadAtATime lets a hundred callers on each node ask at once.
func TestAsideOneLoadAtATime(t *testing.T) {
	for _, arr := range arrangements {
		t.Run(arr.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := arr.opts()
				var loads atomic.Int64
				var wg sync.WaitGroup
				for range arr.nodes {
					a := openAside(t, cache.Config{}, opts...)
					synctest.Wait()
					for range 100 {
						wg.Go(func() {
							g, err := a.Begin(t.Context(), "k")
							if err == nil && g.Lease != nil {
								loads.Add(1)
								time.Sleep(time.Second)
								_, err = g.Lease.Fill(t.Context(), cache.Entry[string]{Value: "v"})
							} else if g.Entry.Value != "v" {
								t.Errorf("got %+v", g)
							}
							if err != nil {
								t.Error(err)
							}
						})
					}
				}
				wg.Wait()
				require.EqualValues(t, 1, loads.Load())
			})
		})
	}
}

func TestAsideLeaseThatEndsLetsTheNextCallerLoad(t *testing.T) {
	for _, arr := range arrangements {
		for name, end := range map[string]func(l cache.Lease[string], cancel func()){
			"release": func(l cache.Lease[string], _ func()) { require.NoError(t, l.Release(t.Context())) },
			"cancel":  func(_ cache.Lease[string], cancel func()) { cancel() },
			"lapse":   func(cache.Lease[string], func()) { time.Sleep(3 * time.Second) },
		} {
			t.Run(arr.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := openAside(t, cache.Config{LoadTimeout: 3 * time.Second}, arr.opts()...)
					synctest.Wait()
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					g, err := a.Begin(ctx, "k")
					require.NoError(t, err)
					next := make(chan cache.Lease[string])
					go func() {
						g, err := a.Begin(t.Context(), "k")
						if err != nil {
							t.Error(err)
						}
						next <- g.Lease
					}()
					synctest.Wait()
					start := time.Now()
					end(g.Lease, cancel)
					l := <-next
					require.LessOrEqual(t, time.Since(start), 3*time.Second+75*time.Millisecond)
					kept, err := g.Lease.Fill(t.Context(), cache.Entry[string]{Value: "late"})
					require.NoError(t, err)
					require.False(t, kept)
					kept, err = l.Fill(t.Context(), cache.Entry[string]{Value: "v"})
					require.NoError(t, err)
					require.True(t, kept)
					require.Zero(t, a.Stats().Loading)
				})
			})
		}
	}
}

func TestAsideBeginObeysItsContextAndClose(t *testing.T) {
	for _, arr := range arrangements {
		t.Run(arr.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := arr.opts()
				a := cache.NewAside[string, string](cache.Config{Name: "users"}, opts...)
				b := a
				if arr.nodes == 2 {
					b = openAside(t, cache.Config{}, opts...)
				}
				synctest.Wait()
				l := begin(t, b, "k")
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				_, err := a.Begin(ctx, "k")
				require.Equal(t, context.DeadlineExceeded, err)
				require.Equal(t, time.Second, time.Since(start))

				waiting := make(chan error)
				go func() {
					_, err := a.Begin(t.Context(), "k")
					waiting <- err
				}()
				synctest.Wait()
				closed := make(chan error)
				go func() { closed <- a.Close() }()
				require.ErrorIs(t, <-waiting, cache.ErrClosed)
				require.NoError(t, <-closed, "Close waits for nobody's lease")
				_, _, err = a.Get(t.Context(), "k")
				require.ErrorIs(t, err, cache.ErrClosed)
				require.NoError(t, l.Release(t.Context()))
			})
		})
	}
}

func TestAsideWithoutItsStore(t *testing.T) {
	s := newFakeStore[string, string]()
	s.setDown(true)
	a := openAside(t, cache.Config{}, cache.WithL2(s))
	_, ok, err := a.Get(t.Context(), "k")
	require.NoError(t, err)
	require.False(t, ok)
	kept, err := begin(t, a, "k").Fill(t.Context(), cache.Entry[string]{Value: "v"})
	require.NoError(t, err)
	require.True(t, kept, "there is still the memory")
	v, ok, err := a.Get(t.Context(), "k")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "v", v)
}

// There is nobody whom a refresh in the background could ask.
func TestAsideRefreshesNothing(t *testing.T) {
	for _, arr := range arrangements {
		t.Run(arr.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := openAside(t, cache.Config{
					TTL: time.Minute, TTLJitter: -1, RefreshAhead: 50 * time.Second, EarlyRefresh: 1000, StaleIfError: time.Hour, LocalTTL: -1,
				}, arr.opts()...)
				synctest.Wait()
				l := begin(t, a, "k")
				time.Sleep(time.Second)
				_, err := l.Fill(t.Context(), cache.Entry[string]{Value: "v"})
				require.NoError(t, err)
				time.Sleep(59 * time.Second)
				for range 2 {
					v, ok, err := a.Get(t.Context(), "k")
					require.NoError(t, err)
					require.True(t, ok)
					require.Equal(t, "v", v)
				}
				require.Zero(t, a.Stats().Refreshes)
				time.Sleep(2 * time.Second)
				_, ok, err := a.Get(t.Context(), "k")
				require.NoError(t, err)
				require.False(t, ok, "stale entries are not for Aside")
			})
		})
	}
}

func TestAsideHitAllocatesNothing(t *testing.T) {
	a := openAside(t, cache.Config{})
	require.NoError(t, a.Set(t.Context(), "k", "v"))
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(1000, func() { _, _, _ = a.Get(ctx, "k") }))
}
