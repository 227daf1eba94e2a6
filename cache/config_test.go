package cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
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
	want := cache.Config{
		Name: "users", MaxEntries: 10_000, TTL: 5 * time.Minute, TTLJitter: 0.1, NegativeTTL: -1, RefreshAhead: -1,
		EarlyRefresh: -1, StaleIfError: -1, RetryDelay: 100 * time.Millisecond, LoadTimeout: 10 * time.Second,
		LocalTTL: 10 * time.Second, StoreTimeout: 250 * time.Millisecond,
	}
	require.Equal(t, want, c.Config())
	kind, name, config := c.Describe()
	require.Equal(t, []any{"cache", "users", want}, []any{kind, name, config})

	require.NoError(t, c.Reconfigure(c.Config()))
	require.Equal(t, want, c.Config())
}

func TestConfigJSON(t *testing.T) {
	text := `{"name":"users","max_entries":5,"max_weight":6,"ttl":"1m30s","ttl_jitter":"off","negative_ttl":"1s",
		"refresh_ahead":"10s","early_refresh":1.5,"stale_if_error":"1h0m0s","retry_delay":"off","load_timeout":"off",
		"local_ttl":"3s","store_timeout":"50ms"}`
	var cfg cache.Config
	require.NoError(t, json.Unmarshal([]byte(text), &cfg))
	require.Equal(t, cache.Config{
		Name: "users", MaxEntries: 5, MaxWeight: 6, TTL: 90 * time.Second, TTLJitter: -1, NegativeTTL: time.Second,
		RefreshAhead: 10 * time.Second, EarlyRefresh: 1.5, StaleIfError: time.Hour, RetryDelay: -1, LoadTimeout: -1,
		LocalTTL: 3 * time.Second, StoreTimeout: 50 * time.Millisecond,
	}, cfg)
	back, err := json.Marshal(cfg)
	require.NoError(t, err)
	require.JSONEq(t, text, string(back))
	require.ErrorContains(t, json.Unmarshal([]byte(`{"tll":"1s"}`), &cfg), "tll")
}

func TestLocalTTLIsAtMostTheTTL(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{-1: time.Second, 0: time.Second, time.Hour: time.Second, 7: 7} {
		c := open(t, identity, cache.Config{TTL: time.Second, LocalTTL: given})
		require.Equal(t, want, c.Config().LocalTTL)
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	err := cache.Config{
		Name: "users", MaxEntries: -3, MaxWeight: -1, TTL: time.Second, TTLJitter: 1, EarlyRefresh: math.NaN(), RefreshAhead: time.Second,
	}.Validate()
	for _, field := range []string{"MaxEntries", "MaxWeight", "TTLJitter", "EarlyRefresh", "RefreshAhead"} {
		require.ErrorContains(t, err, "Config."+field+" is ")
	}
	require.ErrorContains(t, cache.Config{TTLJitter: math.NaN()}.Validate(), "TTLJitter")
	require.ErrorContains(t, cache.Config{RefreshAhead: 5 * time.Minute}.Validate(), "RefreshAhead", "the default TTL counts")
	require.ErrorContains(t, cache.Config{MaxEntries: 1, MaxWeight: 1}.Validate(), "MaxEntries")
	require.NoError(t, cache.Config{RefreshAhead: time.Hour, TTL: -1}.Validate())
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
	require.Panics(t, func() { cache.New(identity, cache.Config{}, cache.WithL2[string, string](nil)) })
	require.Panics(t, func() { cache.New(identity, cache.Config{MaxWeight: 5}) }, "MaxWeight without WithWeight")
	weigh := cache.WithWeight(func(string, string) int { return 1 })
	require.Panics(t, func() { cache.New(identity, cache.Config{}, weigh) }, "WithWeight without MaxWeight")
	require.Panics(t, func() { cache.NewWriteThrough(identity, nil, cache.Config{}) })
	require.PanicsWithError(t,
		`cache "users": the option for a store was given a *cache_test.fakeStore[string,int], which does not fit the keys and values of this cache`,
		func() { cache.New(identity, cache.Config{Name: "users"}, cache.WithStore(newFakeStore[string, int]())) })

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
		require.NoError(t, c.Reconfigure(cache.Config{TTL: time.Second, TTLJitter: -1, LoadTimeout: time.Second}))
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
		"loading", "loads_total", "misses_total", "negative_hits_total", "pending_deletes", "refreshes_total",
		"stale_served_total", "store_away", "store_failures_total",
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
	absent := &cache.Error{Kind: cache.ErrNotFound}
	for _, c := range []struct {
		err                 *cache.Error
		rejected, permanent bool
		after               time.Duration
	}{
		{plain, false, false, 0},
		{advised, false, true, time.Minute},
		{closed, true, true, 0},
		{absent, false, true, 0},
	} {
		require.Equal(t, c.rejected, c.err.Rejected())
		require.Equal(t, c.permanent, c.err.Permanent())
		require.Equal(t, c.after, c.err.RetryAfter())
	}
}
