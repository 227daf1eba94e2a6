package saga_test

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

// stuckOrNot is a definition that gets stuck, or completes.
func stuckOrNot(t *testing.T) *saga.Definition[order] {
	return define(t, saga.Step[order]{Name: "a", Pivot: true, Do: func(context.Context, *order) error { return nil }},
		saga.Step[order]{Name: "b", Retry: saga.Retry{MaxAttempts: 1}, Do: func(_ context.Context, o *order) error {
			if o.N > 0 {
				return errBoom
			}
			return nil
		}})
}

// bounded is a store that notes how many each call may delete, and fails the first one.
type bounded struct {
	*memsaga.Store
	deleted []int
	failed  bool
}

func (b *bounded) Purge(ctx context.Context, age time.Duration, limit int) (int, error) {
	if !b.failed {
		b.failed = true
		return 0, errBoom
	}
	n, err := b.Store.Purge(ctx, age, limit)
	b.deleted = append(b.deleted, n)
	return n, err
}

// What has ended is there for as long as Retention and goes within a minute after that, in batches; what is stuck stays.
func TestRetentionDeletesWhatHasEndedInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ended = 2500
		store, d := &bounded{Store: memsaga.New()}, stuckOrNot(t)
		r, err := saga.NewRunner(store, saga.Config{Retention: time.Hour}, d)
		require.NoError(t, err)
		defer running(t, r)()
		for i := range ended {
			require.NoError(t, saga.Start(t.Context(), r, d, strconv.Itoa(i), order{}))
		}
		_, err = saga.Execute(t.Context(), r, d, "stuck", order{N: 1})
		require.ErrorIs(t, err, saga.ErrStuck)
		left := func() int {
			ins, err := store.List(t.Context(), saga.Filter{Limit: 10_000})
			require.NoError(t, err)
			return len(ins)
		}
		<-time.After(time.Hour - time.Second)
		require.Equal(t, ended+1, left())
		require.EqualValues(t, 1, r.Stats().StoreErrors, "a call that fails is made again with the next look")
		<-time.After(time.Minute + 2*time.Second)
		synctest.Wait()
		require.Equal(t, 1, left())
		sum := 0
		for _, n := range store.deleted {
			require.LessOrEqual(t, n, 1000)
			sum += n
		}
		require.Equal(t, ended, sum)
		require.Contains(t, store.deleted, 1000)
	})
}

func TestRetentionIsOffByDefaultAndCanBeTurnedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, d := memsaga.New(), stuckOrNot(t)
		r := runner(t, store, d)
		defer running(t, r)()
		_, err := saga.Execute(t.Context(), r, d, "1", order{})
		require.NoError(t, err)
		<-time.After(24 * time.Hour)
		load(t, store, "1")
		require.NoError(t, r.Reconfigure(saga.Config{Retention: time.Hour}))
		<-time.After(time.Minute)
		synctest.Wait()
		_, _, err = store.Load(t.Context(), "1")
		require.ErrorIs(t, err, saga.ErrNotFound)
	})
}

// keeper is a store that cannot delete.
type keeper struct{ saga.Store }

func TestRetentionTakesAStoreThatCanDelete(t *testing.T) {
	d := stuckOrNot(t)
	_, err := saga.NewRunner(keeper{memsaga.New()}, saga.Config{Retention: time.Hour}, d)
	require.ErrorContains(t, err, `saga "saga": Config.Retention is 1h0m0s, and saga_test.keeper is no Purger`)
	r := runner(t, keeper{memsaga.New()}, d)
	require.Error(t, r.Reconfigure(saga.Config{Retention: time.Hour}))
	require.Zero(t, r.Config().Retention)
	_, err = saga.NewRunner(memsaga.New(), saga.Config{Retention: -1}, d)
	require.ErrorContains(t, err, "Retention")
}
