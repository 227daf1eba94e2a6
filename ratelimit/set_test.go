package ratelimit_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/ratelimit"
)

func TestEveryKeyHasALimitOfItsOwn(t *testing.T) {
	set := ratelimit.NewSet[string](ratelimit.SetConfig{Name: "tenants", Each: ratelimit.Config{Rate: 0.001}})
	tenantOf := func(query string) string { return query[:1] }
	search := ratelimit.WrapBy(set, tenantOf, func(_ context.Context, query string) (int, error) { return len(query), nil })
	_, err := search(t.Context(), "a: boats")
	require.NoError(t, err)
	_, err = search(t.Context(), "a: sails")
	require.ErrorIs(t, err, ratelimit.ErrLimited)
	require.ErrorContains(t, err, `ratelimit "tenants[a]"`)
	n, err := search(t.Context(), "b: boats")
	require.NoError(t, err)
	require.Equal(t, 8, n)
	a := set.Get("a")
	require.Same(t, a, set.Get("a"))
	require.Equal(t, ratelimit.SetStats{Keys: 2, Rejected: 1}, set.Stats())
	all := maps.Collect(set.All())
	require.Equal(t, map[string]*ratelimit.Limiter{"a": set.Get("a"), "b": set.Get("b")}, all)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = search(context.Background(), "a: sails") }))
	require.Panics(t, func() { ratelimit.WrapBy[string, string, int](set, nil, nil) })
}

func TestBeingDroppedGivesNobodyMoreCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := ratelimit.NewSet[string](ratelimit.SetConfig{Each: ratelimit.Config{Rate: 0.001, Burst: 2, MaxWait: -1}, Idle: time.Minute})
		waits, used, full := set.Get("waits"), set.Get("used"), set.Get("full")
		require.NoError(t, used.Allow())
		require.NoError(t, waits.AllowN(2))
		served := make(chan error, 1)
		go func() { served <- waits.WaitN(context.Background(), 2) }()
		pass(time.Minute)
		set.Get("first sweep")
		require.Equal(t, 4, set.Stats().Keys, "asked for since the set was made")
		pass(time.Minute - 1)
		set.Get("too early")
		require.Equal(t, 5, set.Stats().Keys)
		pass(1)
		set.Get("second sweep")
		require.Equal(t, ratelimit.SetStats{Keys: 5, Waiting: 1, Evicted: 1}, set.Stats())
		require.NotSame(t, full, set.Get("full"))
		require.Same(t, used, set.Get("used"))
		require.Same(t, waits, set.Get("waits"))
		require.NoError(t, <-served)
		require.Zero(t, set.Stats().Waiting)
	})
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := ratelimit.NewSet[int](ratelimit.SetConfig{Name: "clients", Each: ratelimit.Config{Rate: 1, Burst: 1}, MaxKeys: 10, Idle: time.Minute})
		passed := 0
		for client := range 1000 {
			if set.Get(client).Allow() == nil {
				passed++
			}
		}
		require.Equal(t, 11, passed, "ten of their own, and one for all others")
		require.Equal(t, ratelimit.SetStats{Keys: 10, Shared: 990, Rejected: 989}, set.Stats())
		require.ErrorContains(t, set.Get(99).Allow(), `ratelimit "clients[…]"`)
		for range 2 {
			pass(time.Minute)
			set.Get(1000)
		}
		require.NoError(t, set.Get(1000).Allow())
		require.Equal(t, 1, set.Stats().Keys)
		require.Equal(t, int64(10), set.Stats().Evicted)
		require.Equal(t, int64(990), set.Stats().Rejected, "those of dropped keys included")
	})
}

func TestReconfigureReachesEveryKey(t *testing.T) {
	set := ratelimit.NewSet[string](ratelimit.SetConfig{})
	a := set.Get("a")
	require.Equal(t, ratelimit.Config{Name: "ratelimit[a]", Rate: 100, Burst: 100}, a.Config())
	require.NoError(t, a.AllowN(100))
	require.NoError(t, set.Reconfigure(set.Config()))
	require.Less(t, a.Stats().Available, 100)
	require.NoError(t, set.Reconfigure(ratelimit.SetConfig{Name: "tenants", Each: ratelimit.Config{Rate: 5}}))
	require.Equal(t, ratelimit.Config{Name: "tenants[a]", Rate: 5, Burst: 5}, a.Config())
	require.Equal(t, 5, set.Get("b").Config().Burst)

	err := set.Reconfigure(ratelimit.SetConfig{Name: "tenants", Each: ratelimit.Config{Name: "x", Burst: -1}, MaxKeys: -1, Idle: -1})
	for _, fault := range []string{`ratelimit "tenants": Config.Each.Name is x`, "Config.MaxKeys is -1", "Config.Idle is -1ns", "Config.Burst is -1"} {
		require.ErrorContains(t, err, fault)
	}
	require.Panics(t, func() { ratelimit.NewSet[int](ratelimit.SetConfig{MaxKeys: -1}) })
	require.Equal(t, ratelimit.SetConfig{Name: "tenants", Each: ratelimit.Config{Rate: 5, Burst: 5}, MaxKeys: 10_000, Idle: time.Minute}, set.Config())
	kind, name, config := set.Describe()
	require.Equal(t, []any{"ratelimit", "tenants", set.Config()}, []any{kind, name, config})
	require.Equal(t, map[string]float64{"keys": 2, "waiting": 0, "evicted_total": 0, "shared_total": 0, "rejected_total": 0},
		maps.Collect(set.Metrics()))
}

func TestASetUnderLoad(t *testing.T) {
	set := ratelimit.NewSet[string](ratelimit.SetConfig{Each: ratelimit.Config{Rate: 0.001, Burst: 3}, MaxKeys: 50})
	var passed atomic.Int64
	var group sync.WaitGroup
	for caller := range 8 {
		group.Go(func() {
			for i := range 2000 {
				if set.Get(fmt.Sprint((caller+i)%60)).Allow() == nil {
					passed.Add(1)
				}
				if i%500 == 0 {
					set.Stats()
					_ = set.Reconfigure(set.Config())
				}
			}
		})
	}
	group.Wait()
	require.LessOrEqual(t, set.Stats().Keys, 50)
	require.LessOrEqual(t, passed.Load(), int64(51*3), "at most a burst for each key, and one for those that share")
}
