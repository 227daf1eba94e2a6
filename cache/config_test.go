package cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

func identity(_ context.Context, k string) (string, error) { return k, nil }

func TestConfigDefaults(t *testing.T) {
	c := open(t, identity, cache.Config{Name: "users"})
	want := cache.Config{Name: "users", MaxEntries: 10_000, TTL: 5 * time.Minute, LoadTimeout: 10 * time.Second}
	require.Equal(t, want, c.Config())
	kind, name, config := c.Describe()
	require.Equal(t, []any{"cache", "users", want}, []any{kind, name, config})

	require.NoError(t, c.Reconfigure(c.Config()))
	require.Equal(t, want, c.Config())
}

func TestConfigJSON(t *testing.T) {
	text := `{"name":"users","max_entries":5,"ttl":"1m30s","load_timeout":"off"}`
	var cfg cache.Config
	require.NoError(t, json.Unmarshal([]byte(text), &cfg))
	require.Equal(t, cache.Config{Name: "users", MaxEntries: 5, TTL: 90 * time.Second, LoadTimeout: -1}, cfg)
	back, err := json.Marshal(cfg)
	require.NoError(t, err)
	require.JSONEq(t, text, string(back))
	require.ErrorContains(t, json.Unmarshal([]byte(`{"tll":"1s"}`), &cfg), "tll")
}

func FuzzConfigJSON(f *testing.F) {
	f.Add(`{"name":"users","max_entries":5,"ttl":"1m30s","load_timeout":"off"}`)
	f.Add(`{"ttl":7}`)
	f.Fuzz(func(t *testing.T, text string) {
		var cfg, again cache.Config
		if json.Unmarshal([]byte(text), &cfg) != nil {
			require.Zero(t, cfg)
			return
		}
		back, err := json.Marshal(cfg)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(back, &again))
		require.Equal(t, cfg.Validate() == nil, again.Validate() == nil)
	})
}

func TestBadInputIsRefusedAtConstruction(t *testing.T) {
	bad := cache.Config{Name: "users", MaxEntries: -3}
	require.EqualError(t, bad.Validate(),
		`cache "users": Config.MaxEntries is -3: it must be positive, or zero for the default`)
	require.Panics(t, func() { cache.New(identity, bad) })
	require.Panics(t, func() { cache.New[string, string](nil, cache.Config{}) })
	require.Panics(t, func() { cache.New(identity, cache.Config{}, nil) })
	require.Panics(t, func() { cache.New(identity, cache.Config{}, cache.WithStore[string, string](nil)) })
	other := cache.NewMemory[string, int](t, 10)
	require.PanicsWithError(t,
		`cache "users": WithStore was given a *cache.memory[string,int], which is no store for this loader`,
		func() { cache.New(identity, cache.Config{Name: "users"}, cache.WithStore(other)) })

	c := open(t, identity, cache.Config{})
	before := c.Config()
	require.Error(t, c.Reconfigure(bad))
	require.Equal(t, before, c.Config())
}

func TestReconfigureIsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := open(t, func(ctx context.Context, k string) (int64, error) {
			if k == "slow" {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return loads.Add(1), nil
		}, cache.Config{})
		get := func(k string) int64 {
			v, err := c.Get(t.Context(), k)
			require.NoError(t, err)
			return v
		}
		require.EqualValues(t, 1, get("before"))
		require.NoError(t, c.Reconfigure(cache.Config{TTL: time.Second, LoadTimeout: time.Second}))
		require.EqualValues(t, 2, get("after"))
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 1, get("before"), "an entry keeps the TTL it was stored with")
		require.EqualValues(t, 3, get("after"))

		start := time.Now()
		_, err := c.Get(t.Context(), "slow")
		require.ErrorIs(t, err, cache.ErrLoadTimeout)
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestMetricsAreTheStats(t *testing.T) {
	c := open(t, identity, cache.Config{})
	for range 3 {
		_, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
	}
	m := maps.Collect(c.Metrics())
	require.Equal(t, []string{
		"entries", "evictions_total", "fenced_total", "hits_total", "load_failures_total", "load_time_seconds_total",
		"loading", "loads_total", "misses_total", "store_failures_total",
	}, slices.Sorted(maps.Keys(m)))
	require.Equal(t, []float64{2, 1, 1, 1}, []float64{m["hits_total"], m["misses_total"], m["loads_total"], m["entries"]})
	for range c.Metrics() {
		break // stops without a panic
	}
}

// advice is a cause that says how to go on.
type advice struct{ error }

func (advice) Permanent() bool           { return true }
func (advice) RetryAfter() time.Duration { return time.Minute }

func TestErrorForwardsItsCause(t *testing.T) {
	plain := &cache.Error{Kind: cache.ErrStore, Cause: errors.New("x")}
	advised := &cache.Error{Kind: cache.ErrStore, Cause: advice{errors.New("x")}}
	closed := &cache.Error{Kind: cache.ErrClosed}
	for _, c := range []struct {
		err                 *cache.Error
		rejected, permanent bool
		after               time.Duration
	}{
		{plain, false, false, 0},
		{advised, false, true, time.Minute},
		{closed, true, true, 0},
	} {
		require.Equal(t, c.rejected, c.err.Rejected())
		require.Equal(t, c.permanent, c.err.Permanent())
		require.Equal(t, c.after, c.err.RetryAfter())
	}
}
