package saga_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

func TestDefineReportsEveryMistakeAtOnce(t *testing.T) {
	nothing := func(context.Context, *order) error { return nil }
	_, err := saga.Define("", 0,
		saga.Step[order]{Do: nothing},
		saga.Step[order]{Name: "a", Retry: saga.Retry{Initial: -1}},
		saga.Step[order]{Name: "x/y", Do: nothing},
		saga.Step[order]{Name: "a", Do: nothing, Pivot: true, UndoRetry: saga.Retry{Initial: time.Second, Max: time.Millisecond}},
		saga.Step[order]{Name: "b", Do: nothing, Pivot: true, Undo: nothing},
	)
	for _, want := range []string{
		"the name is empty", "version is 0", "step 0 has no name", `step "x/y": the name contains a slash`, `step "a": Do is nil`, `the name "a" is used before`,
		"step \"a\": Retry.Initial is -1ns", "step \"a\": UndoRetry.Max is 1ms", `step "b": Pivot is set`, `step "b": Undo is set after the pivot`,
	} {
		require.ErrorContains(t, err, want)
	}
	_, err = saga.Define[order]("empty", 1)
	require.ErrorContains(t, err, "it has no steps")
	require.Panics(t, func() { saga.MustDefine[order]("empty", 1) })
}

func TestNewRunnerRefusesBadInput(t *testing.T) {
	var j journal
	d, store := define(t, j.step("a", nil, nil)), memsaga.New()
	var none *saga.Definition[order]
	for want, build := range map[string]func() (*saga.Runner, error){
		"the store is nil":      func() (*saga.Runner, error) { return saga.NewRunner(nil, saga.Config{}, d) },
		"no definitions":        func() (*saga.Runner, error) { return saga.NewRunner(store, saga.Config{}) },
		"is given twice":        func() (*saga.Runner, error) { return saga.NewRunner(store, saga.Config{}, d, d) },
		"a definition is nil":   func() (*saga.Runner, error) { return saga.NewRunner(store, saga.Config{}, none) },
		"an option is nil":      func() (*saga.Runner, error) { return saga.NewRunner(store, saga.Config{}, d, nil) },
		"the logger is nil":     func() (*saga.Runner, error) { return saga.NewRunner(store, saga.Config{}, d, saga.WithLogger(nil)) },
		"OnStuck: the function": func() (*saga.Runner, error) { return saga.NewRunner(store, saga.Config{}, d, saga.OnStuck(nil)) },
		"OnTransition: the fun": func() (*saga.Runner, error) { return saga.NewRunner(store, saga.Config{}, d, saga.OnTransition(nil)) },
		"Config.Concurrency is": func() (*saga.Runner, error) { return saga.NewRunner(store, saga.Config{Concurrency: -1}, d) },
	} {
		_, err := build()
		require.ErrorContains(t, err, want)
	}
	r := runner(t, store, d)
	_, err := d.NewInstance("", order{})
	require.ErrorContains(t, err, `the id of an instance is ""`)
	d2, err := saga.Define("order", 2, j.step("a", nil, nil))
	require.NoError(t, err)
	require.ErrorContains(t, saga.Start(t.Context(), r, d2, "1", order{}), "version 2 is not registered")
}

func TestConfigIsData(t *testing.T) {
	bad := saga.Config{Name: "x", Concurrency: -1, Lease: time.Nanosecond, PollMax: -1}
	for _, field := range []string{"Concurrency", "Lease", "PollMax"} {
		require.ErrorContains(t, bad.Validate(), "Config."+field)
	}
	cfg := saga.Config{Name: "x", Concurrency: 2, Lease: time.Minute, DrainTimeout: -1, PollMax: time.Second}
	data, err := json.Marshal(cfg)
	require.NoError(t, err)
	require.JSONEq(t, `{"name":"x","concurrency":2,"lease":"1m0s","drain_timeout":"off","poll_max":"1s"}`, string(data))
	var read saga.Config
	require.NoError(t, json.Unmarshal(data, &read))
	require.Equal(t, cfg, read)
	require.Error(t, json.Unmarshal([]byte(`{"leese":"1s"}`), &read))
}

func TestReconfigureWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := define(t, saga.Step[order]{Name: "a", Do: func(context.Context, *order) error { <-time.After(time.Second); return nil }})
		r, err := saga.NewRunner(memsaga.New(), saga.Config{Concurrency: 1}, d)
		require.NoError(t, err)
		defer running(t, r)()
		before := r.Config()
		require.NoError(t, r.Reconfigure(before))
		require.Equal(t, before, r.Config())
		require.Error(t, r.Reconfigure(saga.Config{Lease: -1}))
		require.ErrorContains(t, r.Reconfigure(saga.Config{Name: "other"}), "cannot be changed")
		require.NoError(t, r.Reconfigure(saga.Config{Concurrency: 4}))
		began := time.Now()
		for _, id := range []string{"1", "2", "3", "4"} {
			require.NoError(t, saga.Start(t.Context(), r, d, id, order{}))
		}
		for _, id := range []string{"1", "2", "3", "4"} {
			_, err := saga.Wait(t.Context(), r, d, id)
			require.NoError(t, err)
		}
		require.Equal(t, time.Second, time.Since(began))
	})
}

func TestRunTwiceIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		r := runner(t, memsaga.New(), define(t, j.step("a", nil, nil)))
		stop := running(t, r)
		synctest.Wait()
		require.ErrorContains(t, r.Run(t.Context()), "while it runs")
		stop()
		stop = running(t, r)
		stop()
	})
}

func TestHooksAreCalledInOrderAndMayCallBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j, seen journal
		var r *saga.Runner
		d := define(t, j.step("a", nil, nil), j.step("b", fails(-1, saga.Permanent(errBoom)), nil))
		r = runner(t, memsaga.New(), d, saga.OnTransition(func(in saga.Instance, e saga.Event) {
			seen.add(string(in.Status) + " after " + string(e.Direction) + " " + e.Step)
			r.Stats()
			require.NoError(t, saga.Start(t.Context(), r, d, in.ID, order{}))
		}))
		defer running(t, r)()
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		_, err := saga.Wait(t.Context(), r, d, "1")
		require.Error(t, err)
		require.Equal(t, []string{"running after do a", "compensating after do b", "compensated after undo a"}, seen.all())
	})
}

func TestStatsMetricsAndLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var log strings.Builder
		undo := j.step("a", nil, fails(-1, saga.Permanent(errBoom)))
		b := j.step("b", fails(1, refusal{}), nil)
		c := j.step("c", fails(-1, errBoom), nil)
		d := define(t, undo, b, c)
		r := runner(t, memsaga.New(), d, saga.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		stop := running(t, r)
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		_, err := saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrStuck)
		stop()
		// a, b twice, c five times, -c, -b, -a
		require.Equal(t, saga.Stats{Started: 1, Stuck: 1, Attempts: 11, Failures: 6, Rejections: 1}, r.Stats())
		metrics := maps.Collect(r.Metrics())
		require.Len(t, metrics, 15+3*6)
		require.InDelta(t, 11, metrics["attempts_total"], 0)
		require.InDelta(t, 5, metrics[`step_attempts_total{saga="order",step="c",direction="do"}`], 0)
		require.InDelta(t, 5, metrics[`step_failures_total{saga="order",step="c",direction="do"}`], 0)
		require.InDelta(t, 1, metrics[`step_attempts_total{saga="order",step="b",direction="do"}`], 0, "the rejected one did not run")
		require.InDelta(t, 1, metrics[`step_failures_total{saga="order",step="a",direction="undo"}`], 0)
		for range r.Metrics() {
			break
		}
		kind, name, cfg := r.Describe()
		require.Equal(t, []any{"saga", "saga", r.Config()}, []any{kind, name, cfg})
		require.Contains(t, log.String(), `msg="saga stuck" saga=order id=1 step=a direction=undo error=boom`)
	})
}

// A hook that takes its time holds up its own node, but not the instance, which waits for its next attempt.
func TestASlowHookDoesNotHoldTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		a := j.step("a", fails(1, errBoom), nil)
		a.Retry.Initial = 8 * time.Second
		d := define(t, a)
		slow := runner(t, store, d, saga.OnTransition(func(saga.Instance, saga.Event) { <-time.After(time.Minute) }))
		other := runner(t, store, d)
		defer running(t, slow)()
		defer running(t, other)()
		require.NoError(t, saga.Start(t.Context(), slow, d, "1", order{}))
		began := time.Now()
		_, err := saga.Wait(t.Context(), other, d, "1")
		require.NoError(t, err)
		require.Less(t, time.Since(began), 9*time.Second)
	})
}
