package saga_test

import (
	"context"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

// lister counts the calls of List.
type lister struct {
	saga.Store
	calls atomic.Int64
}

func (l *lister) List(ctx context.Context, f saga.Filter) ([]saga.Instance, error) {
	l.calls.Add(1)
	return l.Store.List(ctx, f)
}

func TestTheBacklogIsLookedAtWhileSomebodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := &lister{Store: memsaga.New()}
		slow := j.step("slow", func(context.Context) error { <-time.After(25 * time.Second); return nil }, nil)
		d := define(t, slow, saga.Await("paid", "paid", 0, func(context.Context, *order, int) error { return nil }))
		stuck := saga.MustDefine("stuck", 1, j.step("a", nil, fails(-1, saga.Permanent(errBoom))), j.step("b", fails(-1, saga.Permanent(errBoom)), nil))
		r := runner(t, store, d, stuck)
		defer running(t, r)()
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		require.NoError(t, saga.Start(t.Context(), r, d, "2", order{}))
		require.NoError(t, saga.Start(t.Context(), r, stuck, "3", order{}))
		<-time.After(5 * time.Second)
		require.Zero(t, r.Stats().Store, "before the first look")

		<-time.After(16 * time.Second)
		now := r.Stats().Store
		require.Equal(t, saga.Backlog{Running: 2, Stuck: 1, OldestAge: now.OldestAge}, now)
		require.Greater(t, now.OldestAge, 5*time.Second)

		<-time.After(30 * time.Second)
		r.Stats()
		<-time.After(20 * time.Second)
		now = r.Stats().Store
		require.EqualValues(t, 0, now.Running)
		require.EqualValues(t, 2, now.Waiting)
		m := maps.Collect(r.Metrics())
		require.InDelta(t, 2, m["waiting"], 0)
		require.InDelta(t, now.OldestAge.Seconds(), m["oldest_age_seconds"], 0)
		require.InDelta(t, 50, m[`step_time_seconds_total{saga="order",step="slow",direction="do"}`], 1)

		<-time.After(time.Minute) // the last look for what was asked
		before := store.calls.Load()
		<-time.After(10 * time.Minute)
		unasked := store.calls.Load() - before
		require.Positive(t, unasked, "the survey of unknown instances goes on")
		require.LessOrEqual(t, unasked, int64(61), "one List a lease, of what is unknown")
	})
}
