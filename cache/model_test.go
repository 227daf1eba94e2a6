package cache_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/backstay-go/backstay/cache"
)

// model is the dumb oracle: a source, and a map of what the cache must hold since when.
type model struct {
	c      *cache.Cache[string, string]
	cfg    cache.Config
	source map[string]string // what is not in it is not found
	broken bool
	want   cache.Stats
	held   map[string]modelEntry
}

type modelEntry struct {
	value      string
	absent     bool
	stored     time.Time
	ttl, stale time.Duration
}

func newModel(opts []cache.Option) *model {
	m := &model{source: map[string]string{"a": "0"}, held: map[string]modelEntry{}}
	m.cfg = cache.Config{
		TTL: time.Second, TTLJitter: -1, NegativeTTL: 300 * time.Millisecond, StaleIfError: 700 * time.Millisecond,
		RetryDelay: -1, LocalTTL: -1,
	}
	m.c = cache.New(m.load, m.cfg, opts...)
	return m
}

func (m *model) load(_ context.Context, key string) (string, error) {
	if m.broken {
		return "ignored", errSource
	}
	if v, ok := m.source[key]; ok {
		return v, nil
	}
	return "ignored", cache.ErrNotFound
}

// expect is what a Lookup must return. Within the clock's resolution of the TTL's end both answers are right, so hit says
// which was given.
func (m *model) expect(key string, hit bool) (r cache.Result[string], err error) {
	e, held := m.held[key]
	age := time.Since(e.stored)
	if held && (age < e.ttl || age < e.ttl+10*time.Millisecond && hit) {
		m.want.Hits++
		if e.absent {
			m.want.NegativeHits++
			return r, cache.ErrNotFound
		}
		return cache.Result[string]{Value: e.value, Age: age}, nil
	}
	m.want.Misses++
	m.want.Loads++
	v, ok := m.source[key]
	switch {
	case m.broken && held && !e.absent && age < e.ttl+e.stale:
		m.want.LoadFailures++
		m.want.StaleServed++
		return cache.Result[string]{Value: e.value, Stale: true, Age: age}, nil
	case m.broken:
		m.want.LoadFailures++
		return r, errSource
	case ok:
		m.hold(key, v)
		return cache.Result[string]{Value: v}, nil
	case m.cfg.NegativeTTL > 0:
		m.held[key] = modelEntry{absent: true, stored: time.Now(), ttl: m.cfg.NegativeTTL}
	default:
		delete(m.held, key)
	}
	return r, cache.ErrNotFound
}

func (m *model) hold(key, v string) {
	m.held[key] = modelEntry{value: v, stored: time.Now(), ttl: m.cfg.TTL, stale: max(0, m.cfg.StaleIfError)}
}

func (m *model) lookup(t *rapid.T, key string) {
	before := m.c.Stats()
	got, err := m.c.Lookup(t.Context(), key)
	want, wantErr := m.expect(key, m.c.Stats().Hits > before.Hits)
	if got != want || !errors.Is(err, wantErr) {
		t.Fatalf("Lookup(%q) = %+v, %v; want %+v, %v", key, got, err, want, wantErr)
	}
}

func (m *model) run(t *rapid.T) {
	key := rapid.SampledFrom([]string{"a", "b", "c", ""})
	value := rapid.SampledFrom([]string{"", "0", "1", "2"})
	t.Repeat(map[string]func(*rapid.T){
		"lookup": func(t *rapid.T) { m.lookup(t, key.Draw(t, "key")) },
		"again":  func(t *rapid.T) { m.lookup(t, key.Draw(t, "key")) },
		"source": func(t *rapid.T) { m.source[key.Draw(t, "key")] = value.Draw(t, "value") },
		"remove": func(t *rapid.T) { delete(m.source, key.Draw(t, "key")) },
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
		"wait": func(t *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 900).Draw(t, "ms")) * time.Millisecond) },
		"reconfigure": func(t *rapid.T) {
			m.cfg.TTL = time.Duration(rapid.IntRange(1, 3).Draw(t, "ttl")) * time.Second
			m.cfg.NegativeTTL = time.Duration(rapid.IntRange(-1, 3).Draw(t, "negative")) * 300 * time.Millisecond
			m.cfg.StaleIfError = time.Duration(rapid.IntRange(-1, 3).Draw(t, "stale")) * 700 * time.Millisecond
			if err := m.c.Reconfigure(m.cfg); err != nil {
				t.Fatal(err)
			}
		},
		"": func(t *rapid.T) {
			s := m.c.Stats()
			m.want.Entries, m.want.LoadTime = s.Entries, s.LoadTime
			if s != m.want {
				t.Fatalf("%+v, want %+v", s, m.want)
			}
		},
	})
}

func TestCacheBehavesAsItsModel(t *testing.T) {
	for _, a := range arrangements[:3] {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Hidden behind the interface, since rapid would ask for the Deadline, which a bubble does not allow.
				rapid.Check(struct{ rapid.TB }{t}, func(t *rapid.T) {
					m := newModel(a.opts())
					defer func() {
						if err := m.c.Close(); err != nil {
							t.Fatal(err)
						}
					}()
					m.run(t)
				})
			})
		})
	}
}

// TestHitRatioIsThatOfTheEngine reads through a cache that is too small. Misses must reach the engine's policy just
// as reads of the bare engine do, or it would keep the wrong entries.
func TestHitRatioIsThatOfTheEngine(t *testing.T) {
	const n, room = 20_000, 1_000
	_, order := zipf(n)
	engine := otter.Must(&otter.Options[string, int]{MaximumSize: room})
	c := open(t, func(context.Context, string) (int, error) { return 1, nil }, cache.Config{MaxEntries: room})
	bareHits := 0
	for _, k := range order {
		_, err := c.Get(t.Context(), k)
		require.NoError(t, err)
		if _, ok := engine.GetIfPresent(k); ok {
			bareHits++
		} else {
			engine.Set(k, 1)
		}
	}
	ratio := float64(c.Stats().Hits) / float64(len(order))
	bare := float64(bareHits) / float64(len(order))
	t.Logf("hit ratio %.3f, of the engine alone %.3f", ratio, bare)
	require.InDelta(t, bare, ratio, 0.02)
}
