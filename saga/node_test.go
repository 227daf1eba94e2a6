package saga_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

func TestALongAttemptKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		a := j.step("a", func(ctx context.Context) error {
			select {
			case <-time.After(5 * time.Minute):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}, nil)
		a.Timeout = -1
		d := define(t, a)
		one, two := runner(t, store, d), runner(t, store, d)
		defer running(t, one)()
		defer running(t, two)()
		require.NoError(t, saga.Start(t.Context(), one, d, "1", order{}))
		_, err := saga.Wait(t.Context(), two, d, "1")
		require.NoError(t, err)
		require.Equal(t, []string{"a"}, j.all())
	})
}

// A node that can no longer reach the store stops within its lease, records nothing, and another goes on.
func TestANodeThatLostItsLeaseRecordsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		cable := &link{Store: store}
		var lost atomic.Pointer[error]
		began := time.Now()
		first := fails(1, errBoom)
		a := j.step("a", func(ctx context.Context) error {
			if first(ctx) == nil {
				return nil
			}
			cable.cut.Store(true)
			<-ctx.Done()
			cause := context.Cause(ctx)
			lost.Store(&cause)
			require.LessOrEqual(t, time.Since(began), 10*time.Second)
			<-time.After(time.Hour) // it does not heed its context, and ends when all is over
			return nil
		}, nil)
		a.Timeout = -1
		d := define(t, a, j.step("b", nil, nil))
		cutOff, healthy := runner(t, cable, d), runner(t, store, d)
		stop := running(t, cutOff)
		require.NoError(t, saga.Start(t.Context(), cutOff, d, "1", order{}))
		synctest.Wait()
		defer running(t, healthy)()
		res, err := saga.Wait(t.Context(), healthy, d, "1")
		require.NoError(t, err)
		require.ErrorIs(t, *lost.Load(), saga.ErrFenced)
		cable.cut.Store(false)
		<-time.After(2 * time.Hour)
		stop()
		require.Equal(t, []string{"a", "a", "b"}, j.all())
		require.Equal(t, 2, res.History[0].Attempt)
		after, history, err := store.Load(t.Context(), "1")
		require.NoError(t, err)
		require.Equal(t, saga.Completed, after.Status)
		require.Equal(t, res.History, history)
		require.EqualValues(t, 1, cutOff.Stats().Lost)
	})
}

func TestAnOutageOfTheStoreShorterThanTheLeaseRepeatsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		cable := &link{Store: memsaga.New()}
		d := define(t, j.step("a", func(context.Context) error { cable.cut.Store(true); return nil }, nil), j.step("b", nil, nil))
		r := runner(t, cable, d)
		defer running(t, r)()
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		<-time.After(6 * time.Second)
		cable.cut.Store(false)
		_, err := saga.Wait(t.Context(), r, d, "1")
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, j.all())
		require.NotZero(t, r.Stats().StoreErrors)
	})
}

// deaf loses the answer of one commit that was carried out.
type deaf struct {
	saga.Store
	left atomic.Int64
}

func (s *deaf) Commit(ctx context.Context, ts []saga.Transition) ([]bool, error) {
	recorded, err := s.Store.Commit(ctx, ts)
	if s.left.Add(-1) == 0 {
		return nil, errCut
	}
	return recorded, err
}

func TestALostAnswerOfTheStoreRepeatsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := &deaf{Store: memsaga.New()}
		store.left.Store(1)
		d := define(t, j.step("a", nil, nil), j.step("b", nil, nil))
		r := runner(t, store, d)
		defer running(t, r)()
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		res, err := saga.Wait(t.Context(), r, d, "1")
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, j.all())
		require.Len(t, res.History, 2)
	})
}

func TestAStepThatKillsItsNodesIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		a, b := j.step("a", nil, nil), j.step("b", nil, nil)
		d := define(t, a, b)
		in, err := d.NewInstance("1", order{})
		require.NoError(t, err)
		in.Step, in.Owner = "b", "dead"
		_, err = store.Create(t.Context(), in, time.Second)
		require.NoError(t, err)
		for range 4 {
			<-time.After(time.Second)
			ins, err := store.Claim(t.Context(), saga.Claim{Owner: "dead", Known: []saga.Ref{d.Ref()}, Limit: 1, Lease: time.Second})
			require.NoError(t, err)
			require.Len(t, ins, 1)
		}
		r := runner(t, store, d)
		defer running(t, r)()
		_, err = saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.ErrorContains(t, err, "the node was lost during attempt 5")
		require.Equal(t, []string{"-b", "-a"}, j.all())
	})
}

func TestDrainLetsAttemptsFinishAndHandsLeasesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		slow := func(context.Context) error { <-time.After(5 * time.Second); return nil }
		d := define(t, j.step("a", slow, nil), j.step("b", nil, nil))
		r := runner(t, store, d)
		stop := running(t, r)
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		synctest.Wait()
		began := time.Now()
		stop()
		require.Equal(t, 5*time.Second, time.Since(began))
		in := load(t, store, "1")
		require.Equal(t, "b", in.Step)
		require.Empty(t, in.Owner)
		require.Equal(t, []string{"a"}, j.all())

		defer running(t, r)()
		_, err := saga.Wait(t.Context(), r, d, "1")
		require.NoError(t, err)
		require.Equal(t, began.Add(5*time.Second).Round(time.Second), time.Now().Round(time.Second))
	})
}

func TestDrainCutsOffWhatTakesTooLongWithoutCountingIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		a := j.step("a", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, nil)
		a.Timeout = -1
		d := define(t, a)
		r := runner(t, store, d)
		stop := running(t, r)
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		synctest.Wait()
		began := time.Now()
		stop()
		require.Equal(t, 10*time.Second, time.Since(began))
		in, history, err := store.Load(t.Context(), "1")
		require.NoError(t, err)
		require.Empty(t, in.Owner)
		require.Zero(t, in.Attempt)
		require.True(t, in.Doubt)
		require.Equal(t, []saga.Outcome{saga.Interrupted}, outcomes(history))
	})
}

func TestNoMoreThanConcurrencyInstancesRunAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		a := saga.Step[order]{Name: "a", Do: func(context.Context, *order) error {
			most.Store(max(most.Load(), now.Add(1)))
			<-time.After(time.Second)
			now.Add(-1)
			return nil
		}}
		d := define(t, a)
		r, err := saga.NewRunner(memsaga.New(), saga.Config{Concurrency: 3}, d)
		require.NoError(t, err)
		defer running(t, r)()
		began := time.Now()
		for _, id := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"} {
			require.NoError(t, saga.Start(t.Context(), r, d, id, order{}))
		}
		for _, id := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"} {
			_, err := saga.Wait(t.Context(), r, d, id)
			require.NoError(t, err)
		}
		require.EqualValues(t, 3, most.Load())
		require.Less(t, time.Since(began), 3100*time.Millisecond)
	})
}

func TestStartBeforeRunAndOnAnotherNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		d := define(t, j.step("a", nil, nil))
		api, worker := runner(t, store, d), runner(t, store, d)
		require.NoError(t, saga.Start(t.Context(), api, d, "1", order{}))
		stop := running(t, worker)
		_, err := saga.Wait(t.Context(), api, d, "1")
		require.NoError(t, err)
		<-time.After(time.Minute)
		began := time.Now()
		require.NoError(t, saga.Start(t.Context(), api, d, "2", order{}))
		_, err = saga.Wait(t.Context(), api, d, "2")
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(began), 1100*time.Millisecond)
		stop()
	})
}

func TestStartIsIdempotentById(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		d := define(t, j.step("a", nil, nil))
		d2, err := saga.Define("order", 2, j.step("a2", nil, nil))
		require.NoError(t, err)
		other, err := saga.Define("other", 1, j.step("b", nil, nil))
		require.NoError(t, err)
		r := runner(t, memsaga.New(), d, d2, other)
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{N: 10}))
		defer running(t, r)()
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{N: 20}))
		require.NoError(t, saga.Start(t.Context(), r, d2, "1", order{N: 30}))
		require.ErrorIs(t, saga.Start(t.Context(), r, other, "1", order{}), saga.ErrExists)
		res, err := saga.Wait(t.Context(), r, d, "1")
		require.NoError(t, err)
		require.Equal(t, 11, res.State.N)
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		<-time.After(time.Minute)
		require.Equal(t, []string{"a"}, j.all())
		_, err = saga.Wait(t.Context(), r, other, "1")
		require.ErrorIs(t, err, saga.ErrExists)
	})
}

func TestWaitEndsWithItsContextAndKnowsWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		d := define(t, j.step("a", nil, nil))
		r := runner(t, memsaga.New(), d)
		_, err := saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrNotFound)
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		enough := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, enough)
		defer cancel()
		_, err = saga.Wait(ctx, r, d, "1")
		require.ErrorIs(t, err, enough)
	})
}

func TestAStepThatEndsItsGoroutineIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		first := fails(1, errBoom)
		d := define(t, j.step("a", func(ctx context.Context) error {
			if first(ctx) != nil {
				runtime.Goexit()
			}
			return nil
		}, nil))
		r := runner(t, memsaga.New(), d)
		defer running(t, r)()
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		res, err := saga.Wait(t.Context(), r, d, "1")
		require.NoError(t, err)
		require.Equal(t, 2, res.History[0].Attempt)
	})
}

// picky refuses every commit that changes the instance "bad".
type picky struct{ saga.Store }

func (s picky) Commit(ctx context.Context, ts []saga.Transition) ([]bool, error) {
	for _, t := range ts {
		if t.ID == "bad" && t.Next != nil {
			return nil, errCut
		}
	}
	return s.Store.Commit(ctx, ts)
}

func TestAnInstanceTheStoreCannotTakeHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := define(t, saga.Step[order]{Name: "a", Do: func(context.Context, *order) error { <-time.After(time.Second); return nil }})
		r := runner(t, picky{memsaga.New()}, d)
		defer running(t, r)()
		ids := []string{"1", "2", "bad", "3", "4"}
		began := time.Now()
		for _, id := range ids {
			require.NoError(t, saga.Start(t.Context(), r, d, id, order{}))
		}
		for _, id := range []string{"1", "2", "3", "4"} {
			_, err := saga.Wait(t.Context(), r, d, id)
			require.NoError(t, err)
		}
		require.Equal(t, time.Second, time.Since(began))
	})
}
