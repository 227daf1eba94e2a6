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

func openThrough[K comparable, V any](
	t testing.TB, load func(context.Context, K) (V, error), write func(context.Context, K, V) error, cfg cache.Config, opts ...cache.Option,
) *cache.WriteThrough[K, V] {
	w := cache.NewWriteThrough(load, write, cfg, opts...)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return w
}

func TestWriteThroughWritesTheSourceAndKeepsTheValue(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			src := &source{value: "old"}
			w := openThrough(t, src.load, func(_ context.Context, _, v string) error { src.set(v); return nil },
				cache.Config{}, a.opts()...)
			v, err := w.Get(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, "old", v)
			require.NoError(t, w.Set(t.Context(), "k", "new"))
			require.Equal(t, "new", src.value)
			v, err = w.Get(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, "new", v)
			require.Equal(t, 1, src.loads, "what was written had to be loaded")
		})
	}
}

// TestFailedWriteThroughLeavesNoEntry writes in ways that leave the outcome in doubt, while a reader on the same node
// and one on the other bring back what they have read before.
func TestFailedWriteThroughLeavesNoEntry(t *testing.T) {
	for name, end := range map[string]func() error{
		"error":  func() error { return errSource },
		"panic":  func() error { panic("boom") },
		"goexit": func() error { runtime.Goexit(); return nil },
	} {
		for _, a := range arrangements {
			t.Run(name+"/"+a.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					src := &source{value: "old"}
					opts := a.opts()
					cfg := cache.Config{LocalTTL: time.Second}
					var nodes []*cache.WriteThrough[string, string]
					for range a.nodes {
						nodes = append(nodes, openThrough(t, src.load, func(_ context.Context, _, v string) error {
							src.set(v)
							return end()
						}, cfg, opts...))
					}
					for _, n := range nodes {
						_, err := n.Get(t.Context(), "k")
						require.NoError(t, err)
					}
					done := make(chan error)
					go func() {
						var err error
						defer close(done)
						defer func() { _ = recover() }()
						err = nodes[0].Set(t.Context(), "k", "new")
						done <- err
					}()
					if err, ok := <-done; ok {
						require.Same(t, errSource, err)
					}
					time.Sleep(2 * time.Second)
					for _, n := range nodes {
						v, err := n.Get(t.Context(), "k")
						require.NoError(t, err)
						require.Equal(t, "new", v, "the source had taken the value")
					}
				})
			})
		}
	}
}

// TestConcurrentWriteThroughsLeaveNoStaleEntry races writers and readers of few keys on two nodes. The source keeps the
// last write that reached it; when all is quiet, no node may hold anything else.
func TestConcurrentWriteThroughsLeaveNoStaleEntry(t *testing.T) {
	const keys, writers, rounds = 3, 4, 150
	for _, a := range []string{"memory", "store"} {
		t.Run(a, func(t *testing.T) {
			for round := range rounds {
				var sources [keys]atomic.Int64
				load := func(_ context.Context, k int) (int64, error) { defer runtime.Gosched(); return sources[k].Load(), nil }
				write := func(_ context.Context, k int, v int64) error {
					runtime.Gosched()
					sources[k].Store(v)
					runtime.Gosched()
					if v%7 == 0 {
						return errSource // in doubt
					}
					return nil
				}
				var opts []cache.Option
				if a == "store" {
					opts = append(opts, cache.WithStore(newFakeStore[int, int64]()))
				}
				nodes := []*cache.WriteThrough[int, int64]{openThrough(t, load, write, cache.Config{}, opts...)}
				if a == "store" {
					nodes = append(nodes, openThrough(t, load, write, cache.Config{}, opts...))
				}
				var wg sync.WaitGroup
				for w := range writers {
					wg.Go(func() {
						for i := range keys {
							_ = nodes[w%len(nodes)].Set(t.Context(), i, int64(round*1000+w*100+i+1))
							_, _ = nodes[(w+1)%len(nodes)].Get(t.Context(), i)
						}
					})
				}
				wg.Wait()
				for k := range keys {
					for n, c := range nodes {
						v, err := c.Get(t.Context(), k)
						require.NoError(t, err)
						require.Equal(t, sources[k].Load(), v, "round %d, key %d, node %d", round, k, n)
					}
				}
			}
		})
	}
}

// TestOverlappingWriteThroughsLeaveNothing lets the first of two writes reach the source last, and finish last: what the
// second has left by then must not stay.
func TestOverlappingWriteThroughsLeaveNothing(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &source{value: "old"}
				opts := a.opts()
				gates := map[string]chan struct{}{"first": make(chan struct{}), "second": make(chan struct{})}
				write := func(_ context.Context, _, v string) error {
					<-gates[v]
					src.set(v)
					return nil
				}
				var nodes []*cache.WriteThrough[string, string]
				for range 2 {
					nodes = append(nodes, openThrough(t, src.load, write, cache.Config{LocalTTL: time.Second}, opts...))
				}
				if a.nodes == 1 {
					nodes[1] = nodes[0]
				}
				var wg sync.WaitGroup
				for i, v := range []string{"first", "second"} {
					wg.Go(func() {
						if err := nodes[i].Set(t.Context(), "k", v); err != nil {
							t.Error(err)
						}
					})
					synctest.Wait()
				}
				close(gates["second"])
				synctest.Wait()
				close(gates["first"]) // it reaches the source after the second
				wg.Wait()
				time.Sleep(2 * time.Second)
				for _, n := range nodes {
					v, err := n.Get(t.Context(), "k")
					require.NoError(t, err)
					require.Equal(t, "first", v)
				}
			})
		})
	}
}

func TestWriteThroughWhileTheStoreIsDown(t *testing.T) {
	for name, with := range shared {
		t.Run(name, func(t *testing.T) {
			s := newFakeStore[string, int]()
			var written atomic.Int64
			w := openThrough(t, func(context.Context, string) (int, error) { return int(written.Load()), nil },
				func(_ context.Context, _ string, v int) error { written.Store(int64(v)); return nil }, cache.Config{}, with(s))
			s.setDown(true)
			require.ErrorIs(t, w.Set(t.Context(), "k", 7), cache.ErrStore)
			require.EqualValues(t, 7, written.Load(), "the source is written even so")
			v, err := w.Get(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, 7, v)
		})
	}
}
