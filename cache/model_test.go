package cache_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/backstay-go/backstay/cache"
)

var errSource = errors.New("source failed")

// model is the dumb oracle: a source, and a map of what the cache must hold until when.
type model struct {
	c      *cache.Cache[string, int]
	source map[string]int
	broken bool
	loads  uint64
	ttl    time.Duration
	held   map[string]modelEntry
}

type modelEntry struct {
	value  int
	stored time.Time
	ttl    time.Duration
}

func newModel() *model {
	m := &model{source: map[string]int{}, held: map[string]modelEntry{}, ttl: time.Second}
	m.c = cache.New(m.load, cache.Config{TTL: m.ttl})
	return m
}

func (m *model) load(_ context.Context, key string) (int, error) {
	if m.broken {
		return 0, errSource
	}
	return m.source[key], nil
}

// get checks one Get. Within the clock's resolution of the TTL's end both answers are right.
func (m *model) get(t *rapid.T, key string) {
	before := m.c.Stats()
	v, err := m.c.Get(t.Context(), key)
	hit := m.c.Stats().Hits > before.Hits
	e, held := m.held[key]
	left := e.ttl - time.Since(e.stored)
	if held && (left >= 10*time.Millisecond || left > -10*time.Millisecond && hit) {
		if err != nil || v != e.value || !hit {
			t.Fatalf("Get(%s) = %d, %v, hit %v; the cache holds %d for %v", key, v, err, hit, e.value, left)
		}
		return
	}
	m.loads++
	delete(m.held, key)
	if m.broken {
		if !errors.Is(err, errSource) {
			t.Fatalf("Get(%s) = %d, %v from a broken source", key, v, err)
		}
		return
	}
	if err != nil || hit || v != m.source[key] {
		t.Fatalf("Get(%s) = %d, %v, hit %v; the source has %d", key, v, err, hit, m.source[key])
	}
	m.hold(key, v)
}

func (m *model) hold(key string, v int) {
	m.held[key] = modelEntry{value: v, stored: time.Now(), ttl: m.ttl}
}

func (m *model) run(t *rapid.T) {
	key := rapid.SampledFrom([]string{"a", "b", "c", ""})
	value := rapid.IntRange(0, 9)
	t.Repeat(map[string]func(*rapid.T){
		"get":    func(t *rapid.T) { m.get(t, key.Draw(t, "key")) },
		"source": func(t *rapid.T) { m.source[key.Draw(t, "key")] = value.Draw(t, "value") },
		"break":  func(t *rapid.T) { m.broken = rapid.Bool().Draw(t, "broken") },
		"set": func(t *rapid.T) {
			k, v := key.Draw(t, "key"), value.Draw(t, "value")
			if err := m.c.Set(t.Context(), k, v); err != nil {
				t.Fatal(err)
			}
			m.hold(k, v)
		},
		"delete": func(t *rapid.T) {
			k := key.Draw(t, "key")
			if err := m.c.Delete(t.Context(), k); err != nil {
				t.Fatal(err)
			}
			delete(m.held, k)
		},
		"wait": func(t *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 700).Draw(t, "ms")) * time.Millisecond) },
		"reconfigure": func(t *rapid.T) {
			m.ttl = time.Duration(rapid.IntRange(1, 3).Draw(t, "seconds")) * time.Second
			if err := m.c.Reconfigure(cache.Config{TTL: m.ttl}); err != nil {
				t.Fatal(err)
			}
		},
		"": func(t *rapid.T) {
			if s := m.c.Stats(); s.Loads != m.loads || s.Loading != 0 || s.Fenced != 0 {
				t.Fatalf("%+v, but %d loads were due", s, m.loads)
			}
		},
	})
}

func TestCacheBehavesAsItsModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Hidden behind the interface, since rapid would ask for the Deadline, which a bubble does not allow.
		rapid.Check(struct{ rapid.TB }{t}, func(t *rapid.T) {
			m := newModel()
			defer func() {
				if err := m.c.Close(); err != nil {
					t.Fatal(err)
				}
			}()
			m.run(t)
		})
	})
}

// TestHitRatioIsThatOfTheEngine reads through a cache that is too small. Misses must reach the engine's policy just
// as reads of the bare engine do, or it would keep the wrong entries.
func TestHitRatioIsThatOfTheEngine(t *testing.T) {
	const n, room = 20_000, 1_000
	_, order := zipf(n)
	store := cache.NewMemory[string, int](t, room)
	c := open(t, func(context.Context, string) (int, error) { return 1, nil }, cache.Config{MaxEntries: room})
	bareHits := 0
	for _, k := range order {
		_, err := c.Get(t.Context(), k)
		require.NoError(t, err)
		if _, ok, _ := store.Get(t.Context(), k); ok {
			bareHits++
		} else {
			require.NoError(t, store.Set(t.Context(), k, cache.Entry[int]{Value: 1}))
		}
	}
	ratio := float64(c.Stats().Hits) / float64(len(order))
	bare := float64(bareHits) / float64(len(order))
	t.Logf("hit ratio %.3f, of the engine alone %.3f", ratio, bare)
	require.InDelta(t, bare, ratio, 0.02)
}
