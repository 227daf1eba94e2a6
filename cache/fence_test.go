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

// arrangements are the ways to put memory and a store together. Each returns the options of two nodes, the second of
// which may be the first again.
var arrangements = []struct {
	name  string
	nodes int
	opts  func() []cache.Option
}{
	{"memory", 1, func() []cache.Option { return nil }},
	{"store", 2, func() []cache.Option { return []cache.Option{cache.WithStore(newFakeStore[string, string]())} }},
	{"tiered", 2, func() []cache.Option { return []cache.Option{cache.WithL2(newFakeStore[string, string]())} }},
	{"watched", 2, func() []cache.Option {
		return []cache.Option{cache.WithL2(&watchedStore[string, string]{fakeStore: newFakeStore[string, string]()})}
	}},
}

// source is what caches load from: a load reads it at once and takes a second.
type source struct {
	mu    sync.Mutex
	value string
	loads int
	slow  time.Duration
}

func (s *source) load(context.Context, string) (string, error) {
	s.mu.Lock()
	read := s.value
	s.loads++
	s.mu.Unlock()
	time.Sleep(s.slow)
	return read, nil
}

func (s *source) set(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value = value
}

// TestWriteDuringLoadWins lets a node write while the other, or the same, is loading what it has read before, in every
// arrangement. Afterwards no node may find the older value, neither in memory nor in the store.
func TestWriteDuringLoadWins(t *testing.T) {
	for _, a := range arrangements {
		for name, write := range writes {
			t.Run(a.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					src := &source{value: "old", slow: time.Second}
					opts := a.opts()
					cfg := cache.Config{LocalTTL: 100 * time.Millisecond}
					loading := open(t, src.load, cfg, opts...)
					writing := loading
					if a.nodes == 2 {
						writing = open(t, src.load, cfg, opts...)
					}
					go func() { _, _ = loading.Get(t.Context(), "k") }()
					synctest.Wait()
					src.set("new")
					require.NoError(t, write(t.Context(), writing, "new"))
					time.Sleep(2 * time.Second)
					require.EqualValues(t, 1, loading.Stats().Fenced)
					for _, c := range []*cache.Cache[string, string]{loading, writing} {
						v, err := c.Get(t.Context(), "k")
						require.NoError(t, err)
						require.Equal(t, "new", v)
					}
				})
			})
		}
	}
}

var writes = map[string]func(context.Context, *cache.Cache[string, string], string) error{
	"set": func(ctx context.Context, c *cache.Cache[string, string], v string) error { return c.Set(ctx, "k", v) },
	"delete": func(ctx context.Context, c *cache.Cache[string, string], _ string) error {
		return c.Delete(ctx, "k")
	},
}

// TestWriteDuringRefreshWins is the same with a refresh in the background.
func TestWriteDuringRefreshWins(t *testing.T) {
	for _, a := range arrangements {
		for name, write := range writes {
			t.Run(a.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					src := &source{value: "old", slow: time.Second}
					opts := a.opts()
					cfg := cache.Config{TTL: time.Minute, TTLJitter: -1, RefreshAhead: 30 * time.Second, LocalTTL: -1}
					refreshing := open(t, src.load, cfg, opts...)
					writing := refreshing
					if a.nodes == 2 {
						writing = open(t, src.load, cfg, opts...)
					}
					_, err := refreshing.Get(t.Context(), "k")
					require.NoError(t, err)
					time.Sleep(40 * time.Second)
					for range 2 { // the first may have to get the entry back from the store
						v, err := refreshing.Get(t.Context(), "k")
						require.NoError(t, err)
						require.Equal(t, "old", v, "the refresh is in the background")
					}
					synctest.Wait()
					require.EqualValues(t, 1, refreshing.Stats().Refreshes)

					src.set("new")
					require.NoError(t, write(t.Context(), writing, "new"))
					time.Sleep(2 * time.Second)
					for _, c := range []*cache.Cache[string, string]{refreshing, writing} {
						v, err := c.Get(t.Context(), "k")
						require.NoError(t, err)
						require.Equal(t, "new", v)
					}
				})
			})
		}
	}
}

// TestInvalidateDuringLoadWins shows that what a topic's handler calls fences as Delete does.
func TestInvalidateDuringLoadWins(t *testing.T) {
	for name, invalidate := range map[string]func(*cache.Cache[string, string]){
		"one": func(c *cache.Cache[string, string]) { c.Invalidate("other", "k") },
		"all": func(c *cache.Cache[string, string]) { c.InvalidateAll() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &source{value: "old", slow: time.Second}
				c := open(t, src.load, cache.Config{})
				require.NoError(t, c.Set(t.Context(), "other", "set"))
				go func() { _, _ = c.Get(t.Context(), "k") }()
				synctest.Wait()
				src.set("new")
				invalidate(c)
				require.Zero(t, c.Stats().Entries)
				for range 2 {
					v, err := c.Get(t.Context(), "k")
					require.NoError(t, err)
					require.Equal(t, "new", v)
				}
				time.Sleep(time.Second)
				require.EqualValues(t, 1, c.Stats().Fenced)
				require.Equal(t, 2, src.loads)
			})
		})
	}
}

// TestGetAfterWriteIsNeverOlderOnTwoNodes races reads and writes of few keys, without refreshes and with, over a store
// that two nodes share without memory of their own. Each writer owns a key, changes the source, deletes or sets the
// entry, and must then read nothing older on either node.
func TestGetAfterWriteIsNeverOlderOnTwoNodes(t *testing.T) {
	const keys, rounds = 4, 1000
	var sources [keys]atomic.Int64
	load := func(_ context.Context, k int) (int64, error) {
		v := sources[k].Load()
		runtime.Gosched()
		return v, nil
	}
	store := newFakeStore[int, int64]()
	cfg := cache.Config{TTL: time.Hour, TTLJitter: -1, RefreshAhead: time.Hour - time.Nanosecond}
	nodes := []*cache.Cache[int, int64]{
		open(t, load, cfg, cache.WithStore(store)), open(t, load, cfg, cache.WithStore(store)),
	}
	var readers, writers sync.WaitGroup
	stop := make(chan struct{})
	for _, c := range nodes {
		readers.Go(func() {
			for i := 0; ; i++ {
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
				wrote := sources[k].Add(1)
				var err error
				if i%2 == 0 {
					err = nodes[i/2%2].Delete(t.Context(), k)
				} else {
					err = nodes[i/2%2].Set(t.Context(), k, wrote)
				}
				for n, c := range nodes {
					v, getErr := c.Get(t.Context(), k)
					if err != nil || getErr != nil || v != wrote {
						t.Errorf("key %d, node %d: wrote %d, then read %d; %v, %v", k, n, wrote, v, err, getErr)
						return
					}
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

// TestConcurrentSetsLeaveMemoryAndStoreAlike lets two Sets reach the store in one order and the memory in the other.
func TestConcurrentSetsLeaveMemoryAndStoreAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore[string, string]()
		c := open(t, func(context.Context, string) (string, error) { return "loaded", nil }, cache.Config{}, cache.WithL2(s))
		resume := make(chan struct{})
		var sets atomic.Int64
		s.after = func(op string, _ string) {
			if op == "Set" && sets.Add(1) == 1 {
				<-resume // stored first, answered last
			}
		}
		done := make(chan error, 1)
		go func() { done <- c.Set(t.Context(), "k", "first") }()
		synctest.Wait()
		require.NoError(t, c.Set(t.Context(), "k", "second"))
		close(resume)
		require.NoError(t, <-done)
		v, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, "second", v)
	})
}

// TestGetAfterDeleteJoinsNoFlightThatSawTheOldEntry starts a Get while the store is about to delete. Were flights
// voided before the store's Delete only, that Get would find the old entry, and a Get that begins after the Delete
// returned would join it.
func TestGetAfterDeleteJoinsNoFlightThatSawTheOldEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore[string, string]()
		value := "old"
		c := open(t, func(context.Context, string) (string, error) { return value, nil }, cache.Config{}, cache.WithL2(s))
		require.NoError(t, s.Set(t.Context(), "k", cache.Entry[string]{Value: "old"}))
		value = "new"
		resume := make(chan struct{})
		s.before = func(op string, _ string) {
			if op == "Delete" {
				go func() { _, _ = c.Get(t.Context(), "k") }()
				synctest.Wait() // it has read the old entry
			}
		}
		var gets atomic.Int64
		s.after = func(op string, _ string) {
			if op == "Get" && gets.Add(1) == 1 {
				<-resume
			}
		}
		require.NoError(t, c.Delete(t.Context(), "k"))
		got := make(chan string, 1)
		go func() {
			v, _ := c.Get(t.Context(), "k")
			got <- v
		}()
		synctest.Wait()
		close(resume)
		require.Equal(t, "new", <-got)
		v, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, "new", v)
	})
}

// TestGetAfterDeleteElsewhereJoinsNoOlderLoad deletes on one node between the moment when the other has stored what it
// loaded, or was refused to, and the moment when it knows. There is no memory: a Get on that node that begins
// after the Delete returned must not get the older value from the load that is still ending.
func TestGetAfterDeleteElsewhereJoinsNoOlderLoad(t *testing.T) {
	for _, deleteAt := range []string{"before", "after"} {
		t.Run(deleteAt, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &source{value: "old"}
				s := newFakeStore[string, string]()
				loading := open(t, src.load, cache.Config{}, cache.WithStore(s))
				deleting := open(t, src.load, cache.Config{}, cache.WithStore(s))
				resume := make(chan struct{})
				var fills atomic.Int64
				hook := func(op, _ string) {
					if op == "Fill" && fills.Add(1) == 1 {
						src.set("new")
						if err := deleting.Delete(t.Context(), "k"); err != nil {
							t.Error(err)
						}
						<-resume
					}
				}
				if deleteAt == "before" {
					s.before = hook
				} else {
					s.after = hook
				}
				first := make(chan string)
				go func() {
					v, _ := loading.Get(t.Context(), "k")
					first <- v
				}()
				synctest.Wait()
				got := make(chan string)
				go func() {
					v, _ := loading.Get(t.Context(), "k")
					got <- v
				}()
				synctest.Wait()
				close(resume)
				require.Equal(t, "old", <-first, "it began before the Delete")
				require.Equal(t, "new", <-got)
			})
		})
	}
}

// A flight that a write has taken out must leave its successor joinable when it ends.
func TestVoidedLoadLeavesItsSuccessorAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := open(t, func(context.Context, string) (int64, error) {
			time.Sleep(time.Second)
			return loads.Add(1), nil
		}, cache.Config{})
		get := func() { _, _ = c.Get(t.Context(), "k") }
		go get()
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, c.Delete(t.Context(), "k"))
		go get()
		time.Sleep(700 * time.Millisecond) // the first load has ended, the second has not
		get()
		require.EqualValues(t, 2, loads.Load())
	})
}
