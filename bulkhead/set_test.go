package bulkhead_test

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

	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/policytest"
)

func TestPolicy(t *testing.T) {
	policytest.Run(t, func() policytest.Policy { return bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 100}) })
}

func TestEveryKeyHasABulkheadOfItsOwn(t *testing.T) {
	set := bulkhead.NewSet[string](bulkhead.SetConfig{Name: "hosts", Each: bulkhead.Config{MaxConcurrent: 1}})
	p := acquire(t, set.Get("slow"))
	fetch := bulkhead.WrapBy(set, func(host string) string { return host }, func(_ context.Context, host string) (int, error) { return len(host), nil })
	_, err := fetch(t.Context(), "slow")
	require.ErrorIs(t, err, bulkhead.ErrFull)
	require.ErrorContains(t, err, `bulkhead "hosts[slow]"`)
	n, err := fetch(t.Context(), "quick")
	require.NoError(t, err)
	require.Equal(t, 5, n)
	require.Equal(t, bulkhead.SetStats{Keys: 2, Running: 1, Rejected: 1}, set.Stats())
	require.Equal(t, map[string]*bulkhead.Bulkhead{"slow": set.Get("slow"), "quick": set.Get("quick")}, maps.Collect(set.All()))
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = fetch(context.Background(), "quick") }))
	p.Done(nil)
	require.Zero(t, set.Stats().Running)
	require.Panics(t, func() { bulkhead.WrapBy[string, string, int](set, nil, nil) })
}

func TestBeingDroppedGivesNobodyMoreRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := bulkhead.NewSet[string](bulkhead.SetConfig{Each: bulkhead.Config{MaxConcurrent: 1}, Idle: time.Minute})
		busy, empty := set.Get("busy"), set.Get("empty")
		p := acquire(t, busy)
		for sweep := range 3 {
			<-time.After(time.Minute)
			set.Get(fmt.Sprint(sweep))
		}
		require.Equal(t, bulkhead.SetStats{Keys: 3, Running: 1, Evicted: 2}, set.Stats(), "of the empty ones, the last two remain")
		require.Same(t, busy, set.Get("busy"))
		require.NotSame(t, empty, set.Get("empty"))
		require.ErrorIs(t, set.Get("busy").Do(t.Context(), nil), bulkhead.ErrFull)
		p.Done(nil)
	})
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := bulkhead.NewSet[int](bulkhead.SetConfig{Name: "hosts", Each: bulkhead.Config{MaxConcurrent: 1}, MaxKeys: 10})
		admitted := 0
		for host := range 1000 {
			if _, err := set.Get(host).Acquire(t.Context()); err == nil {
				admitted++
			}
		}
		require.Equal(t, 11, admitted, "ten of their own, and one for all others")
		require.Equal(t, bulkhead.SetStats{Keys: 10, Running: 11, Shared: 990, Rejected: 989}, set.Stats())
	})
}

func TestReconfigureReachesEveryKey(t *testing.T) {
	set := bulkhead.NewSet[string](bulkhead.SetConfig{})
	p := acquire(t, set.Get("a"))
	require.NoError(t, set.Reconfigure(set.Config()))
	cfg := bulkhead.SetConfig{Name: "hosts", Each: bulkhead.Config{MaxConcurrent: 5}, MaxKeys: 7}
	require.NoError(t, set.Reconfigure(cfg))
	require.Equal(t, bulkhead.Config{Name: "hosts[a]", MaxConcurrent: 5, MaxQueue: -1, QueueTimeout: -1}, set.Get("a").Config())
	require.Equal(t, 5, set.Get("b").Config().MaxConcurrent)
	require.Equal(t, 1, set.Get("a").Stats().Running)
	p.Done(nil)
	err := set.Reconfigure(bulkhead.SetConfig{Name: "hosts", Each: bulkhead.Config{Name: "x", MaxConcurrent: -1}, MaxKeys: -1, Idle: 5})
	for _, fault := range []string{`bulkhead "hosts": Config.Each.Name is x`, "Config.MaxKeys is -1", "Config.Idle is 5ns", "Config.MaxConcurrent is -1"} {
		require.ErrorContains(t, err, fault)
	}
	require.Panics(t, func() { bulkhead.NewSet[int](bulkhead.SetConfig{MaxKeys: -1}) })
	kind, name, config := set.Describe()
	require.Equal(t, []any{"bulkhead", "hosts", set.Config()}, []any{kind, name, config})
	require.Equal(t, map[string]float64{"keys": 2, "running": 0, "waiting": 0, "evicted_total": 0, "shared_total": 0, "rejected_total": 0},
		maps.Collect(set.Metrics()))
	text, err := json.Marshal(cfg)
	require.NoError(t, err)
	require.JSONEq(t, `{"name":"hosts","each":{"max_concurrent":5},"max_keys":7}`, string(text))
	var read bulkhead.SetConfig
	require.NoError(t, json.Unmarshal(text, &read))
	require.Equal(t, cfg, read)
}

func TestASetUnderLoad(t *testing.T) {
	set := bulkhead.NewSet[string](bulkhead.SetConfig{Each: bulkhead.Config{MaxConcurrent: 2, MaxQueue: 100}, MaxKeys: 50})
	fetch := bulkhead.WrapBy(set, func(key int) string { return fmt.Sprint(key % 60) }, func(context.Context, int) (int, error) { return 0, nil })
	var group sync.WaitGroup
	for caller := range 8 {
		group.Go(func() {
			for i := range 2000 {
				if _, err := fetch(context.Background(), caller+i); err != nil {
					t.Error(err)
				}
				if i%500 == 0 {
					_ = set.Reconfigure(set.Config())
				}
			}
		})
	}
	group.Wait()
	s := set.Stats()
	require.Equal(t, bulkhead.SetStats{Keys: 50, Shared: s.Shared}, s)
}

func FuzzConfigJSON(f *testing.F) {
	f.Add([]byte(`{"name":"a","max_concurrent":3,"max_queue":5,"queue_timeout":"1s"}`))
	f.Add([]byte(`{"max_queue":"off","queue_timeout":"off"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var first, second bulkhead.Config
		if json.Unmarshal(data, &first) != nil || first.Validate() != nil {
			return
		}
		inForce := bulkhead.New(first).Config()
		out, err := json.Marshal(inForce)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(out, &second), "%s", out)
		require.NoError(t, second.Validate())
		require.Equal(t, inForce, bulkhead.New(second).Config())
	})
}
