package saga_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

func TestStepsRunInOrderOnceEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		res, err := play(t, define(t, j.step("a", nil, nil), j.step("b", nil, nil), j.step("c", nil, nil)))
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b", "c"}, j.all())
		require.Equal(t, saga.Completed, res.Status)
		require.Equal(t, 3, res.State.N)
		require.Equal(t, []saga.Outcome{saga.Done, saga.Done, saga.Done}, outcomes(res.History))
	})
}

func TestUndoRunsInReverseIncludingTheStepInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		c := j.step("c", fails(-1, errBoom), nil)
		c.Retry.MaxAttempts = 2
		plain := saga.Step[order]{Name: "plain", Do: func(context.Context, *order) error { return nil }}
		res, err := play(t, define(t, j.step("a", nil, nil), plain, j.step("b", nil, nil), c, j.step("d", nil, nil)))
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.ErrorContains(t, err, "boom")
		require.Equal(t, []string{"a", "b", "c", "c", "-c", "-b", "-a"}, j.all())
		require.Equal(t, saga.Compensated, res.Status)
	})
}

func TestAStepThatFailedPermanentlyIsNotUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		_, err := play(t, define(t, j.step("a", nil, nil), j.step("b", fails(-1, saga.Permanent(errBoom)), nil)))
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.Equal(t, []string{"a", "b", "-a"}, j.all())
	})
}

func TestAPermanentFailureAfterOneInDoubtIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		first := fails(1, errBoom)
		b := j.step("b", func(ctx context.Context) error {
			if err := first(ctx); err != nil {
				return err
			}
			return saga.Permanent(errBoom)
		}, nil)
		_, err := play(t, define(t, j.step("a", nil, nil), b))
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.Equal(t, []string{"a", "b", "b", "-b", "-a"}, j.all())
	})
}

func TestAWrappedPermanentErrorIsTheStepsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		res, err := play(t, define(t, j.step("a", fails(1, fmt.Errorf("charge: %w", saga.Permanent(errBoom))), nil)))
		require.NoError(t, err)
		require.Equal(t, []saga.Outcome{saga.Failed, saga.Done}, outcomes(res.History))
	})
}

func TestAFailedAttemptLeavesNoTraceInTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		res, err := play(t, define(t, j.step("a", fails(4, errBoom), nil)))
		require.NoError(t, err)
		require.Equal(t, 1, res.State.N)
		require.Len(t, j.all(), 5)
	})
}

func TestAPanicIsAFailedAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		panics := func(context.Context) error { panic("bad luck") }
		res, err := play(t, define(t, j.step("a", panics, nil)))
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.Contains(t, res.History[0].Error, "bad luck")
		require.Contains(t, res.History[0].Error, "guarantees_test.go")
		require.Len(t, j.all(), 6)
	})
}

func TestPausesGrowAndHoldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		a := j.step("a", fails(3, errBoom), nil)
		a.Retry = saga.Retry{Initial: 10 * time.Second, Max: 20 * time.Second}
		d := define(t, a)
		r := runner(t, store, d)
		defer running(t, r)()
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		synctest.Wait()
		in := load(t, store, "1")
		require.Empty(t, in.Owner)
		require.Zero(t, r.Stats().Active)
		res, err := saga.Wait(t.Context(), r, d, "1")
		require.NoError(t, err)
		for i, longest := range []time.Duration{10 * time.Second, 20 * time.Second, 20 * time.Second} {
			pause := res.History[i+1].Started.Sub(res.History[i].Ended)
			require.GreaterOrEqual(t, pause, longest/2)
			require.LessOrEqual(t, pause, longest+10*time.Millisecond)
		}
	})
}

func TestARejectionDoesNotCountAndRetryAfterIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		a := j.step("a", fails(7, refusal{after: time.Minute}), nil)
		a.Retry.MaxAttempts = 1
		res, err := play(t, define(t, a))
		require.NoError(t, err)
		require.Len(t, res.History, 8)
		for i := range 7 {
			require.Equal(t, saga.Rejected, res.History[i].Outcome)
			require.GreaterOrEqual(t, res.History[i+1].Started.Sub(res.History[i].Ended), time.Minute)
		}
		require.Equal(t, 1, res.History[7].Attempt)
	})
}

func TestTheTimeoutBoundsAnAttemptButASuccessStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		slow := j.step("slow", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, nil)
		slow.Timeout, slow.Retry.MaxAttempts = time.Second, 1
		late := j.step("late", func(ctx context.Context) error { <-ctx.Done(); return nil }, nil)
		res, err := play(t, define(t, late, slow))
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.ErrorContains(t, err, context.DeadlineExceeded.Error())
		require.Equal(t, 30*time.Second, res.History[0].Ended.Sub(res.History[0].Started))
		require.Equal(t, saga.Done, res.History[0].Outcome)
		require.Equal(t, time.Second, res.History[1].Ended.Sub(res.History[1].Started))
	})
}

func TestCompensationDoesNotDependOnTheContextOfTheStarter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		ctx, cancel := context.WithCancel(t.Context())
		d := define(t, j.step("a", nil, func(ctx context.Context) error { return ctx.Err() }), j.step("b", func(context.Context) error {
			cancel()
			<-time.After(time.Second)
			return saga.Permanent(errBoom)
		}, nil))
		r := runner(t, memsaga.New(), d)
		defer running(t, r)()
		require.NoError(t, saga.Start(ctx, r, d, "1", order{}))
		_, err := saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.Equal(t, []string{"a", "b", "-a"}, j.all())
	})
}

func TestAfterThePivotTheSagaOnlyGoesForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		pivot, after := j.step("pivot", nil, nil), j.step("after", fails(40, errBoom), nil)
		pivot.Pivot, pivot.Undo, after.Undo = true, nil, nil
		res, err := play(t, define(t, j.step("a", nil, nil), pivot, after))
		require.NoError(t, err)
		require.Len(t, res.History, 43)
		require.NotContains(t, j.all(), "-a")
	})
}

func TestAfterThePivotAPermanentFailureIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		pivot, after := j.step("pivot", nil, nil), j.step("after", fails(-1, saga.Permanent(errBoom)), nil)
		pivot.Pivot, after.Undo = true, nil
		_, err := play(t, define(t, j.step("a", nil, nil), pivot, after))
		require.ErrorIs(t, err, saga.ErrStuck)
		require.Equal(t, []string{"a", "pivot", "after"}, j.all())
	})
}

func TestThePivotItselfCanStillBeUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		pivot := j.step("pivot", fails(-1, errBoom), nil)
		pivot.Pivot, pivot.Retry.MaxAttempts = true, 1
		_, err := play(t, define(t, j.step("a", nil, nil), pivot))
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.Equal(t, []string{"a", "pivot", "-pivot", "-a"}, j.all())
	})
}

func TestTheIdempotencyKeyIsStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		key := func(ctx context.Context) error {
			a, ok := saga.Current(ctx)
			require.True(t, ok)
			require.Equal(t, "1/a/do", a.DoKey())
			j.add(fmt.Sprint(saga.IdempotencyKey(ctx), " ", a.Number))
			return errBoom
		}
		a := j.step("a", key, key)
		a.Retry.MaxAttempts, a.UndoRetry.MaxAttempts = 2, 2
		_, err := play(t, define(t, a))
		require.ErrorIs(t, err, saga.ErrStuck)
		require.Equal(t, []string{"a", "1/a/do 1", "a", "1/a/do 2", "-a", "1/a/undo 1", "-a", "1/a/undo 2"}, j.all())
		require.Empty(t, saga.IdempotencyKey(t.Context()))
	})
}

func TestAnUndecodableStateIsStuckAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		d := define(t, j.step("a", nil, nil))
		in, err := d.NewInstance("1", order{})
		require.NoError(t, err)
		in.State = []byte(`{"N":"many"}`)
		_, err = store.Create(t.Context(), in, 0)
		require.NoError(t, err)
		r := runner(t, store, d)
		defer running(t, r)()
		res, err := saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrStuck)
		require.ErrorContains(t, err, "cannot be decoded")
		require.Len(t, res.History, 1)
		require.Empty(t, j.all())
	})
}

func TestAnUnknownVersionIsLeftAloneAndListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		v1 := define(t, j.step("a", nil, nil))
		v2, err := saga.Define("order", 2, j.step("b", nil, nil))
		require.NoError(t, err)
		old := runner(t, store, v1)
		require.NoError(t, saga.Start(t.Context(), old, v1, "1", order{}))

		r := runner(t, store, v2)
		stop := running(t, r)
		<-time.After(time.Minute)
		require.Empty(t, j.all())
		require.EqualValues(t, 1, r.Stats().Unknown)
		ins, err := r.Unknown(t.Context(), 10)
		require.NoError(t, err)
		require.Equal(t, "1", ins[0].ID)
		stop()

		both := runner(t, store, v1, v2)
		defer running(t, both)()
		_, err = saga.Wait(t.Context(), both, v1, "1")
		require.NoError(t, err)
		require.Equal(t, []string{"a"}, j.all())
	})
}
