package saga_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

// stuck runs a saga of a, b, c to the point where the Undo of b is stuck; healed makes it succeed.
func stuck(t *testing.T, j *journal, test func(t *testing.T, r *saga.Runner, d *saga.Definition[order], healed *atomic.Bool)) {
	synctest.Test(t, func(t *testing.T) {
		var healed atomic.Bool
		var told atomic.Int64
		d := define(t, j.step("a", nil, nil), j.step("b", nil, func(context.Context) error {
			if healed.Load() {
				return nil
			}
			return errBoom
		}), j.step("c", fails(-1, saga.Permanent(errBoom)), nil))
		r := runner(t, memsaga.New(), d, saga.OnStuck(func(in saga.Instance) {
			told.Add(1)
			require.Equal(t, "b", in.Step)
		}))
		defer running(t, r)()
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		res, err := saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrStuck)
		require.Len(t, res.History, 3+20)
		require.EqualValues(t, 1, told.Load())
		<-time.After(time.Hour)
		require.Len(t, j.all(), 3+20)
		test(t, r, d, &healed)
	})
}

func TestUndoThatFailsForAWhileSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		_, err := play(t, define(t, j.step("a", nil, fails(19, errBoom)), j.step("b", fails(-1, saga.Permanent(errBoom)), nil)))
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.Len(t, j.all(), 2+20)
	})
}

func TestUndoThatFailsForeverIsStuckUntilRetried(t *testing.T) {
	var j journal
	stuck(t, &j, func(t *testing.T, r *saga.Runner, d *saga.Definition[order], healed *atomic.Bool) {
		require.NoError(t, r.Retry(t.Context(), "1"))
		_, err := saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrStuck)
		require.Len(t, j.all(), 3+20+20)
		healed.Store(true)
		require.NoError(t, r.Retry(t.Context(), "1"))
		_, err = saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.Equal(t, []string{"-b", "-a"}, j.all()[43:])
		require.ErrorIs(t, r.Retry(t.Context(), "1"), saga.ErrStatus)
	})
}

func TestSkipAndMarkDoneGoOnWithTheNextStep(t *testing.T) {
	for outcome, repair := range map[saga.Outcome]func(*saga.Runner, context.Context, string) error{
		saga.Skipped: (*saga.Runner).Skip, saga.MarkedDone: (*saga.Runner).MarkDone,
	} {
		t.Run(string(outcome), func(t *testing.T) {
			var j journal
			stuck(t, &j, func(t *testing.T, r *saga.Runner, d *saga.Definition[order], _ *atomic.Bool) {
				require.NoError(t, repair(r, t.Context(), "1"))
				res, err := saga.Wait(t.Context(), r, d, "1")
				require.ErrorIs(t, err, saga.ErrCompensated)
				require.Equal(t, []string{"-a"}, j.all()[23:])
				require.Equal(t, []saga.Outcome{outcome, saga.Done}, outcomes(res.History)[23:])
			})
		})
	}
}

func TestAbortEndsAStuckCompensation(t *testing.T) {
	var j journal
	stuck(t, &j, func(t *testing.T, r *saga.Runner, d *saga.Definition[order], _ *atomic.Bool) {
		require.NoError(t, r.Abort(t.Context(), "1"))
		_, err := saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrAborted)
		require.Len(t, j.all(), 23)
		require.ErrorIs(t, r.Abort(t.Context(), "1"), saga.ErrStatus)
		require.ErrorIs(t, r.Abort(t.Context(), "2"), saga.ErrNotFound)
	})
}

// Compensation must not overtake the Do it makes up for, even if that does not notice the abort.
func TestAbortOfARunningAttemptWaitsForItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		began := time.Now()
		var ended, undone time.Duration
		b := j.step("b", func(ctx context.Context) error {
			<-ctx.Done()
			<-time.After(5 * time.Second)
			ended = time.Since(began)
			return nil
		}, func(context.Context) error { undone = time.Since(began); return nil })
		b.Timeout, b.UndoRetry.MaxAttempts = -1, 1
		d := define(t, j.step("a", nil, nil), b)
		r := runner(t, memsaga.New(), d)
		defer running(t, r)()
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		<-time.After(time.Minute)
		require.NoError(t, r.Abort(t.Context(), "1"))
		require.NoError(t, r.Abort(t.Context(), "1"), "an instance that is compensating is left to it")
		res, err := saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.ErrorContains(t, err, "aborted by an operator")
		require.Equal(t, []string{"a", "b", "-b", "-a"}, j.all())
		require.NotZero(t, ended)
		require.Less(t, ended, undone)
		require.Equal(t, []saga.Outcome{saga.Done, saga.GivenUp, saga.Done, saga.Done}, outcomes(res.History))
	})
}

func TestAbortAfterThePivotIsRefusedUntilItIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		pivot, after := j.step("pivot", nil, nil), j.step("after", fails(3, errBoom), nil)
		pivot.Pivot, after.Undo = true, nil
		after.Retry = saga.Retry{MaxAttempts: 2, Initial: time.Minute}
		d := define(t, j.step("a", nil, nil), pivot, after)
		r := runner(t, memsaga.New(), d)
		defer running(t, r)()
		require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
		synctest.Wait()
		require.ErrorIs(t, r.Abort(t.Context(), "1"), saga.ErrStatus)
		require.ErrorIs(t, r.Skip(t.Context(), "1"), saga.ErrStatus)
		_, err := saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrStuck)
		require.NoError(t, r.Abort(t.Context(), "1"))
		_, err = saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrAborted)
	})
}

// late changes the instance between the load and the commit of a repair.
type late struct {
	saga.Store
	meddle func()
}

func (s *late) Load(ctx context.Context, id string) (saga.Instance, []saga.Event, error) {
	in, history, err := s.Store.Load(ctx, id)
	s.meddle()
	return in, history, err
}

func TestARepairNeverOverwritesAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		d := define(t, j.step("a", nil, nil))
		worker := runner(t, store, d)
		require.NoError(t, saga.Start(t.Context(), worker, d, "1", order{}))
		var stop func()
		desk := runner(t, &late{Store: store, meddle: func() {
			stop = running(t, worker)
			_, err := saga.Wait(t.Context(), worker, d, "1")
			require.NoError(t, err)
		}}, d)
		require.ErrorIs(t, desk.Abort(t.Context(), "1"), saga.ErrFenced)
		require.Equal(t, saga.Completed, load(t, store, "1").Status)
		stop()
	})
}

// An operator's command has no definitions: what takes one is done by the next node that knows it, once, and the history says so at once.
func TestRepairsAreOrderedWhereTheDefinitionIsNotKnown(t *testing.T) {
	for outcome, repair := range map[saga.Outcome]func(*saga.Runner, context.Context, string) error{
		saga.Skipped: (*saga.Runner).Skip, saga.MarkedDone: (*saga.Runner).MarkDone, saga.Retried: (*saga.Runner).Retry, saga.GivenUp: (*saga.Runner).Abort,
	} {
		t.Run(string(outcome), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				var healed atomic.Bool
				store := memsaga.New()
				d := define(t, j.step("a", nil, nil), saga.Parallel("g", saga.Branch[order, int]{
					Name: "b", Do: func(context.Context, order) (int, error) { return 1, nil },
					Undo: func(context.Context, order, int) error {
						if healed.Load() {
							return nil
						}
						return errBoom
					}}), j.step("c", fails(-1, saga.Permanent(errBoom)), nil))
				r := runner(t, store, d)
				stop := running(t, r)
				require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
				_, err := saga.Wait(t.Context(), r, d, "1")
				require.ErrorIs(t, err, saga.ErrStuck)
				stop()
				before := len(history(t, store, "1"))
				healed.Store(outcome == saga.Retried)

				stranger, err := saga.Define("stranger", 1, j.step("x", nil, nil))
				require.NoError(t, err)
				operator := runner(t, store, stranger)
				require.NoError(t, repair(operator, t.Context(), "1"))
				if outcome != saga.GivenUp {
					require.Equal(t, saga.Compensating, load(t, store, "1").Status)
					require.ErrorIs(t, repair(operator, t.Context(), "1"), saga.ErrStatus)
				}
				require.Equal(t, outcome, outcomes(history(t, store, "1"))[before])

				again := runner(t, store, d)
				defer running(t, again)()
				_, err = saga.Wait(t.Context(), again, d, "1")
				lines := map[saga.Outcome][]saga.Outcome{saga.Skipped: {saga.Done}, saga.MarkedDone: {saga.Done}, saga.Retried: {saga.Done, saga.Done}}
				if outcome == saga.GivenUp {
					require.ErrorIs(t, err, saga.ErrAborted)
					require.Equal(t, []string{"a", "c"}, j.all())
				} else {
					require.ErrorIs(t, err, saga.ErrCompensated)
					require.Equal(t, []string{"a", "c", "-a"}, j.all())
				}
				require.Equal(t, lines[outcome], append([]saga.Outcome(nil), outcomes(history(t, store, "1"))[before+1:]...))
				require.NotContains(t, load(t, store, "1").Marks, "")
			})
		})
	}
}

// An order that cannot be carried out shows as an error of an instance that is stuck again.
func TestAnOrderForAStepThatIsGoneIsStuckAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		old := define(t, j.step("gone", nil, fails(-1, errBoom)), j.step("c", fails(-1, saga.Permanent(errBoom)), nil))
		first := runner(t, store, old)
		stop := running(t, first)
		require.NoError(t, saga.Start(t.Context(), first, old, "1", order{}))
		_, err := saga.Wait(t.Context(), first, old, "1")
		require.ErrorIs(t, err, saga.ErrStuck)
		stop()
		stranger, err := saga.Define("stranger", 1, j.step("x", nil, nil))
		require.NoError(t, err)
		operator := runner(t, store, stranger)
		require.NoError(t, operator.Skip(t.Context(), "1"))
		d := define(t, j.step("other", nil, nil))
		r := runner(t, store, d)
		defer running(t, r)()
		_, err = saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrStuck)
		require.ErrorContains(t, err, `no step "gone"`)
		require.NoError(t, operator.Abort(t.Context(), "1"), "it can still be given up")
	})
}

// What is stuck going forward past its pivot is passed over, or given up, by order too.
func TestOrdersGoForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		pivot, after, last := j.step("pivot", nil, nil), j.step("after", fails(-1, errBoom), nil), j.step("last", nil, nil)
		pivot.Pivot, after.Undo, last.Undo = true, nil, nil
		after.Retry = saga.Retry{MaxAttempts: 1}
		d := define(t, pivot, after, last)
		stranger, err := saga.Define("stranger", 1, j.step("x", nil, nil))
		require.NoError(t, err)
		operator, r := runner(t, store, stranger), runner(t, store, d)
		defer running(t, r)()
		for _, id := range []string{"skip", "abort"} {
			require.NoError(t, saga.Start(t.Context(), r, d, id, order{}))
			_, err = saga.Wait(t.Context(), r, d, id)
			require.ErrorIs(t, err, saga.ErrStuck)
		}
		require.NoError(t, operator.Skip(t.Context(), "skip"))
		_, err = saga.Wait(t.Context(), r, d, "skip")
		require.NoError(t, err)
		require.NoError(t, operator.Abort(t.Context(), "abort"))
		_, err = saga.Wait(t.Context(), r, d, "abort")
		require.ErrorIs(t, err, saga.ErrAborted)
		require.Equal(t, []string{"pivot", "after", "pivot", "after", "last"}, j.all())
	})
}

func history(t testing.TB, s saga.Store, id string) []saga.Event {
	t.Helper()
	_, events, err := s.Load(t.Context(), id)
	require.NoError(t, err)
	return events
}

// An order is void once the instance has turned back by another way: nothing that was done is left standing for it.
func TestCancelOverridesAnOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		d := define(t, j.step("a", nil, nil), j.step("b", nil, nil), j.step("c", nil, nil))
		stranger, err := saga.Define("stranger", 1, j.step("x", nil, nil))
		require.NoError(t, err)
		in, err := d.NewInstance("1", order{})
		require.NoError(t, err)
		in.Step, in.Status = "c", saga.Stuck // as one whose state could not be read
		_, err = store.Create(t.Context(), in, 0)
		require.NoError(t, err)
		require.NoError(t, runner(t, store, stranger).Skip(t.Context(), "1"))
		r := runner(t, store, d)
		require.NoError(t, r.Cancel(t.Context(), "1"))
		require.NotContains(t, load(t, store, "1").Marks, "")
		defer running(t, r)()
		_, err = saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.Equal(t, []string{"-b", "-a"}, j.all())
	})
}
