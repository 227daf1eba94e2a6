package breaker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/breaker"
)

var oneFailure = breaker.Config{ConsecutiveFailures: 1, OpenDelay: time.Second, Probes: 1}

func TestEachKeyHasItsOwnBreaker(t *testing.T) {
	s := breaker.NewSet[string](breaker.SetConfig{Name: "hosts", Each: oneFailure})
	get := breaker.WrapBy(s, func(host string) string { return host }, func(_ context.Context, host string) (int, error) {
		if host == "down" {
			return 0, errBroken
		}
		return 200, nil
	})
	_, _ = get(t.Context(), "down")
	_, err := get(t.Context(), "down")
	require.ErrorIs(t, err, breaker.ErrOpen)
	require.ErrorContains(t, err, `breaker "hosts[down]" is open`)
	status, err := get(t.Context(), "up")
	require.NoError(t, err)
	require.Equal(t, 200, status)
	up := s.Get("up")
	require.Same(t, up, s.Get("up"))

	stats := s.Stats()
	require.Equal(t, []int{2, 1}, []int{stats.Keys, stats.Open})
	require.Equal(t, breaker.Stats{Calls: 2, Successes: 1, Failures: 1, Rejected: 1, Opened: 1}, stats.Total)
	all := maps.Collect(s.All())
	require.Len(t, all, 2)
	require.Equal(t, breaker.Open, all["down"].State())
}

func TestASetIsBounded(t *testing.T) {
	s := breaker.NewSet[int](breaker.SetConfig{Each: oneFailure, MaxKeys: 10})
	_ = s.Get(0).Do(t.Context(), fail)
	busy := s.Get(1)
	for i := range 1000 {
		require.NoError(t, s.Get(1000+i).Do(t.Context(), succeed))
		require.Same(t, busy, s.Get(1), "one that is asked for again and again stays")
	}
	stats := s.Stats()
	require.Equal(t, 10, stats.Keys)
	require.EqualValues(t, 992, stats.Evicted)
	require.EqualValues(t, 1001, stats.Total.Calls, "the totals outlive the breakers")
	all := maps.Collect(s.All())
	require.Contains(t, all, 0, "one that is open stays while there are others to drop")
}

func TestASetOfOpenBreakersIsBoundedToo(t *testing.T) {
	s := breaker.NewSet[int](breaker.SetConfig{Each: oneFailure, MaxKeys: 3})
	for i := range 20 {
		_ = s.Get(i).Do(t.Context(), fail)
	}
	stats := s.Stats()
	require.Equal(t, []int{3, 3}, []int{stats.Keys, stats.Open}, "dropped breakers are not open any more")
	require.EqualValues(t, 20, stats.Total.Opened)
}

func TestIdleKeysAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := breaker.NewSet[string](breaker.SetConfig{Each: oneFailure, Idle: time.Minute})
		idle := s.Get("idle")
		_ = idle.Do(t.Context(), fail)
		for range 12 {
			time.Sleep(10 * time.Second)
			require.NoError(t, s.Get("busy").Do(t.Context(), succeed))
			_ = s.Stats()
		}
		all := maps.Collect(s.All())
		require.Contains(t, all, "busy")
		require.NotContains(t, all, "idle")
		require.Zero(t, s.Stats().Open)
		require.NotSame(t, idle, s.Get("idle"))
		require.NoError(t, idle.Do(t.Context(), succeed), "it still works for those who hold it")
		require.Zero(t, s.Stats().Open)

		time.Sleep(time.Hour)
		_ = s.Get("new") // nobody looked for an hour: one look is enough
		require.NotContains(t, maps.Collect(s.All()), "busy")
	})
}

func TestAKeyIsNotDroppedBeforeIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := breaker.NewSet[string](breaker.SetConfig{Idle: time.Minute})
		start := time.Now()
		time.Sleep(29 * time.Second)
		kept := s.Get("key")
		for time.Since(start) < 89*time.Second {
			time.Sleep(time.Second)
			require.Equal(t, 1, s.Stats().Keys)
		}
		require.Same(t, kept, s.Get("key"))
		off := breaker.NewSet[string](breaker.SetConfig{Idle: -1})
		kept = off.Get("key")
		time.Sleep(1000 * time.Hour)
		_ = off.Get("other")
		require.Same(t, kept, off.Get("key"))
	})
}

func TestOnlyAShareMayBeOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := breaker.NewSet[int](breaker.SetConfig{Each: oneFailure, MaxOpenRatio: 0.3})
		for i := range 10 {
			_ = s.Get(i).Do(t.Context(), succeed)
		}
		for i := range 10 {
			_ = s.Get(i).Do(t.Context(), fail)
		}
		require.Equal(t, 3, s.Stats().Open)
		require.EqualValues(t, 7, s.Stats().Held)
		require.ErrorIs(t, s.Get(0).Do(t.Context(), succeed), breaker.ErrOpen)
		require.ErrorIs(t, s.Get(9).Do(t.Context(), fail), errBroken, "it stays closed")

		time.Sleep(time.Second)
		require.ErrorIs(t, s.Get(1).Do(t.Context(), fail), errBroken, "a half-open one is within the share already")
		require.Equal(t, breaker.Open, s.Get(1).State())
		require.NoError(t, s.Get(0).Do(t.Context(), succeed))
		require.Equal(t, 2, s.Stats().Open)
		_ = s.Get(9).Do(t.Context(), fail)
		require.Equal(t, breaker.Open, s.Get(9).State(), "there is room again")
	})
}

func TestOneMayAlwaysBeOpen(t *testing.T) {
	s := breaker.NewSet[string](breaker.SetConfig{Each: oneFailure, MaxOpenRatio: 0.1})
	_ = s.Get("only").Do(t.Context(), fail)
	require.Equal(t, breaker.Open, s.Get("only").State())
}

func TestReconfigureASet(t *testing.T) {
	s := breaker.NewSet[int](breaker.SetConfig{Name: "hosts", Each: oneFailure, MaxOpenRatio: 0.5})
	for i := range 4 {
		_ = s.Get(i).Do(t.Context(), succeed)
	}
	_ = s.Get(0).Do(t.Context(), fail)
	cfg := s.Config()
	cfg.Each.Mode = "force_open"
	require.NoError(t, s.Reconfigure(cfg))
	require.Equal(t, 4, s.Stats().Open, "an operator may open all")
	require.Equal(t, "hosts[3]", s.Get(3).Config().Name)
	require.ErrorIs(t, s.Get(99).Do(t.Context(), succeed), breaker.ErrOpen, "a new key too")
	cfg.Each.Mode, cfg.MaxKeys = "force_closed", 2
	require.NoError(t, s.Reconfigure(cfg))
	require.Equal(t, []int{2, 0}, []int{s.Stats().Keys, s.Stats().Open})
	require.Error(t, s.Reconfigure(breaker.SetConfig{MaxKeys: -1}))
	require.Equal(t, cfg, s.Config(), "a refused SetConfig changes nothing")
	require.NoError(t, s.Reconfigure(s.Config()))
	require.Equal(t, cfg, s.Config())
}

func TestManyCallersOfASet(t *testing.T) {
	s := breaker.NewSet[int](breaker.SetConfig{Each: breaker.Config{ConsecutiveFailures: 1, OpenDelay: 1, MaxOpenDelay: 1000, Probes: 1}, MaxKeys: 8, MaxOpenRatio: 0.5})
	call := breaker.WrapBy(s, func(n int) int { return n % 16 }, func(_ context.Context, n int) (int, error) {
		if n%3 == 0 {
			return 0, errBroken
		}
		return n, nil
	})
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			for i := range 2000 {
				_, _ = call(context.Background(), i+g)
			}
		})
	}
	for range 50 {
		require.NoError(t, s.Reconfigure(s.Config()))
		require.LessOrEqual(t, s.Stats().Keys, 8)
	}
	group.Wait()
	open := 0
	for _, b := range s.All() {
		if b.State() != breaker.Closed {
			open++
		}
	}
	require.Equal(t, open, s.Stats().Open, "the count is exact once all is quiet")
	require.LessOrEqual(t, open, 4)
}

func TestAKnownKeyAllocatesNothing(t *testing.T) {
	s := breaker.NewSet[string](breaker.SetConfig{})
	fn := breaker.WrapBy(s, func(k string) string { return k }, func(_ context.Context, k string) (int, error) { return len(k), nil })
	require.Zero(t, testing.AllocsPerRun(200, func() { _, _ = fn(context.Background(), "tenant") }))
}

func TestSetConfig(t *testing.T) {
	bad := breaker.SetConfig{Name: "hosts", Each: breaker.Config{Name: "x", Window: -1}, MaxKeys: -1, MaxOpenRatio: 2}
	for _, field := range []string{"Each.Name is x", "Window is -1", "MaxKeys is -1", "MaxOpenRatio is 2"} {
		require.ErrorContains(t, bad.Validate(), `breaker "hosts": Config.`+field)
	}
	require.Panics(t, func() { breaker.NewSet[int](bad) })
	require.Panics(t, func() { breaker.WrapBy[int, int, int](nil, nil, nil) })
	var c breaker.SetConfig
	require.NoError(t, json.Unmarshal([]byte(`{"name":"hosts","each":{"mode":"metrics_only","slow_call":"1s"},"idle":"off","max_open_ratio":0.3}`), &c))
	require.Equal(t, breaker.SetConfig{Name: "hosts", Each: breaker.Config{Mode: "metrics_only", SlowCall: time.Second}, Idle: -1, MaxOpenRatio: 0.3}, c)
	full := breaker.NewSet[int](c).Config()
	out, err := json.Marshal(full)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &c))
	require.Equal(t, full, c)
	require.Error(t, json.Unmarshal([]byte(`{"each":{"windows":10}}`), &c))
}

func TestSetMetricsTellTheStats(t *testing.T) {
	s := breaker.NewSet[string](breaker.SetConfig{Name: "m", Each: oneFailure})
	_ = s.Get("a").Do(t.Context(), fail)
	require.Equal(t, map[string]float64{
		"keys": 1, "open": 1, "evicted_total": 0, "held_total": 0, "successes_total": 0, "failures_total": 1, "slow_total": 0,
		"ignored_total": 0, "rejected_total": 0, "opened_total": 1,
	}, maps.Collect(s.Metrics()))
	kind, name, config := s.Describe()
	require.Equal(t, fmt.Sprint("breaker.Set", "m", s.Config()), fmt.Sprint(kind, name, config))
}
