package saga_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

// bench is a store, a node that runs, and the test around them.
type site struct {
	*testing.T
	store *memsaga.Store
	r     *saga.Runner
	j     *journal
}

// onSite runs test in a bubble with a node that knows d.
func onSite(t *testing.T, build func(s *site) []saga.Part, test func(s *site)) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{T: t, store: memsaga.New(), j: &journal{}}
		s.r = runner(t, s.store, build(s)...)
		defer running(t, s.r)()
		test(s)
	})
}

func (s *site) start(d *saga.Definition[order], id string) {
	s.Helper()
	require.NoError(s, saga.Start(s.Context(), s.r, d, id, order{}))
	synctest.Wait()
}

func (s *site) wait(d *saga.Definition[order], id string) (saga.Result[order], error) {
	return saga.Wait(s.Context(), s.r, d, id)
}

func approval(timeout time.Duration) saga.Step[order] {
	return saga.Await("approval", "approved", timeout, func(_ context.Context, o *order, by int) error {
		o.N += by
		return nil
	})
}

func TestAnEventWakesItsInstanceWhichHoldsNothingMeanwhile(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		d = define(s, s.j.step("a", nil, nil), approval(0), s.j.step("b", nil, nil))
		return []saga.Part{d}
	}, func(s *site) {
		s.start(d, "1")
		in := load(s, s.store, "1")
		require.Empty(s, in.Owner)
		require.Equal(s, "approved", in.Awaits)
		require.Zero(s, s.r.Stats().Active)
		<-time.After(2 * time.Hour)
		require.Equal(s, []string{"a"}, s.j.all())
		require.NoError(s, saga.Send(s.Context(), s.r, "1", "approved", 100))
		began := time.Now()
		res, err := s.wait(d, "1")
		require.NoError(s, err)
		require.Zero(s, time.Since(began))
		require.Equal(s, 102, res.State.N)
		require.Equal(s, []saga.Outcome{saga.Done, saga.Waiting, saga.Done, saga.Done}, outcomes(res.History))
	})
}

func TestAnEventThatComesEarlyIsKeptAndTheFirstOneStands(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		d = define(s, s.j.step("a", func(context.Context) error { <-time.After(time.Minute); return nil }, nil), approval(time.Second))
		return []saga.Part{d}
	}, func(s *site) {
		s.start(d, "1")
		for _, by := range []int{10, 20} {
			require.NoError(s, saga.Send(s.Context(), s.r, "1", "approved", by))
		}
		require.NoError(s, saga.Send(s.Context(), s.r, "1", "another", "text"))
		res, err := s.wait(d, "1")
		require.NoError(s, err)
		require.Equal(s, 11, res.State.N)
		require.ErrorIs(s, saga.Send(s.Context(), s.r, "1", "approved", 1), saga.ErrStatus)
		require.ErrorIs(s, saga.Send(s.Context(), s.r, "2", "approved", 1), saga.ErrNotFound)
		require.ErrorContains(s, saga.Send(s.Context(), s.r, "1", "a/b", 1), "slash")
	})
}

func TestAnEventThatDoesNotComeTurnsBackOrGoesOnOtherwise(t *testing.T) {
	for name, late := range map[string]bool{"turns back": false, "goes on": true} {
		t.Run(name, func(t *testing.T) {
			var d *saga.Definition[order]
			onSite(t, func(s *site) []saga.Part {
				step := approval(time.Hour)
				if late {
					step.OnTimeout = func(_ context.Context, o *order) error { o.N = 50; return nil }
				}
				d = define(s, s.j.step("a", nil, nil), step)
				return []saga.Part{d}
			}, func(s *site) {
				began := time.Now()
				s.start(d, "1")
				require.NoError(s, saga.Send(s.Context(), s.r, "1", "another", 1))
				res, err := s.wait(d, "1")
				require.InDelta(s, time.Hour, time.Since(began), float64(time.Second))
				if late {
					require.NoError(s, err)
					require.Equal(s, 50, res.State.N)
					return
				}
				require.ErrorIs(s, err, saga.ErrCompensated)
				require.ErrorContains(s, err, "did not come in time")
				require.Equal(s, []string{"a", "-a"}, s.j.all())
			})
		})
	}
}

func TestASleepLastsUntilTheStoresClockSaysSo(t *testing.T) {
	var d *saga.Definition[order]
	var until time.Time
	onSite(t, func(s *site) []saga.Part {
		until = time.Now().Add(2 * time.Hour)
		d = define(s, saga.SleepUntil("night", func(order) time.Time { return until }), s.j.step("a", nil, nil),
			saga.SleepUntil("past", func(order) time.Time { return until }), s.j.step("b", nil, nil))
		return []saga.Part{d}
	}, func(s *site) {
		s.start(d, "1")
		require.Zero(s, s.r.Stats().Active)
		res, err := s.wait(d, "1")
		require.NoError(s, err)
		require.Equal(s, until, time.Now())
		require.Equal(s, []saga.Outcome{saga.Waiting, saga.Done, saga.Done, saga.Done, saga.Done}, outcomes(res.History))
		require.Equal(s, []string{"a", "b"}, s.j.all())
	})
}

func TestAStepWhoseWhenSaysNoIsNeitherDoneNorUndone(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		b, c := s.j.step("b", nil, nil), s.j.step("c", nil, nil)
		b.When = func(o order) bool { return o.N != 1 }
		c.When = func(o order) bool { return o.N == 1 }
		d = define(s, s.j.step("a", nil, nil), b, c, s.j.step("d", fails(-1, saga.Permanent(errBoom)), nil))
		return []saga.Part{d}
	}, func(s *site) {
		s.start(d, "1")
		res, err := s.wait(d, "1")
		require.ErrorIs(s, err, saga.ErrCompensated)
		require.Equal(s, []string{"a", "c", "d", "-c", "-a"}, s.j.all())
		require.Equal(s, saga.Omitted, res.History[1].Outcome)
	})
}

func TestTheDeadlineTurnsBackWhatIsBeforeThePivot(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		b := s.j.step("b", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, func(ctx context.Context) error {
			a, _ := saga.Current(ctx)
			require.Contains(s, a.Cause, "the deadline has passed")
			return ctx.Err()
		})
		b.Timeout = -1
		d = define(s, s.j.step("a", nil, nil), b)
		var err error
		d, err = d.WithLimits(saga.Limits{Deadline: time.Hour})
		require.NoError(s, err)
		return []saga.Part{d}
	}, func(s *site) {
		began := time.Now()
		s.start(d, "1")
		_, err := s.wait(d, "1")
		require.ErrorIs(s, err, saga.ErrCompensated)
		require.InDelta(s, time.Hour, time.Since(began), float64(time.Second))
		require.Equal(s, []string{"a", "b", "-b", "-a"}, s.j.all())
	})
}

func TestTheDeadlineCutsWaitsAndPausesShort(t *testing.T) {
	for name, step := range map[string]saga.Step[order]{
		"await": approval(0),
		"sleep": saga.SleepUntil("sleep", func(order) time.Time { return time.Now().Add(1000 * time.Hour) }),
		"pause": {Name: "pause", Do: func(context.Context, *order) error { return errBoom }, Retry: saga.Retry{Initial: 100 * time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			var d *saga.Definition[order]
			onSite(t, func(s *site) []saga.Part {
				d = define(s, s.j.step("a", nil, nil), step)
				var err error
				d, err = d.WithLimits(saga.Limits{Deadline: time.Hour})
				require.NoError(s, err)
				return []saga.Part{d}
			}, func(s *site) {
				began := time.Now()
				s.start(d, "1")
				_, err := s.wait(d, "1")
				require.ErrorIs(s, err, saga.ErrCompensated)
				require.InDelta(s, time.Hour, time.Since(began), float64(time.Second))
			})
		})
	}
}

func TestTheDeadlineDoesNotBoundWhatFollowsThePivot(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		pivot := s.j.step("pivot", nil, nil)
		pivot.Pivot = true
		d = define(s, pivot, saga.SleepUntil("sleep", func(order) time.Time { return time.Date(2000, 1, 1, 3, 0, 0, 0, time.UTC) }))
		var err error
		d, err = d.WithLimits(saga.Limits{Deadline: time.Hour})
		require.NoError(s, err)
		_, err = d.WithLimits(saga.Limits{Deadline: -1, Concurrency: -1})
		require.ErrorContains(s, err, "Limits.Deadline is -1ns")
		require.ErrorContains(s, err, "Limits.Concurrency is -1")
		return []saga.Part{d}
	}, func(s *site) {
		s.start(d, "1")
		_, err := s.wait(d, "1")
		require.NoError(s, err)
	})
}

func TestNoMoreInstancesOfADefinitionRunThanItsLimit(t *testing.T) {
	var slow, quick *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		var err error
		slow, err = define(s, s.j.step("slow", func(context.Context) error { <-time.After(time.Second); return nil }, nil)).
			WithLimits(saga.Limits{Concurrency: 2})
		require.NoError(s, err)
		quick, err = saga.Define("quick", 1, s.j.step("quick", nil, nil))
		require.NoError(s, err)
		return []saga.Part{slow, quick}
	}, func(s *site) {
		began := time.Now()
		for _, id := range []string{"1", "2", "3", "4", "5", "6"} {
			s.start(slow, id)
		}
		require.EqualValues(s, 2, s.r.Stats().Active)
		s.start(quick, "quick")
		_, err := s.wait(quick, "quick")
		require.NoError(s, err)
		require.Zero(s, time.Since(began))
		for _, id := range []string{"1", "2", "3", "4", "5", "6"} {
			_, err := s.wait(slow, id)
			require.NoError(s, err)
		}
		require.GreaterOrEqual(s, time.Since(began), 3*time.Second)
		require.Less(s, time.Since(began), 3100*time.Millisecond)
	})
}

func TestCancelTurnsBackWhatRunsWaitsOrSleeps(t *testing.T) {
	steps := map[string]func(j *journal) saga.Step[order]{
		"await": func(*journal) saga.Step[order] { return approval(0) },
		"attempt": func(j *journal) saga.Step[order] {
			return j.step("b", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }, nil)
		},
		"deaf attempt": func(j *journal) saga.Step[order] {
			return j.step("b", func(ctx context.Context) error { <-time.After(20 * time.Second); return nil }, nil)
		},
		"pause": func(j *journal) saga.Step[order] {
			b := j.step("b", fails(-1, errBoom), nil)
			b.Retry = saga.Retry{Initial: time.Hour}
			return b
		},
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			var d *saga.Definition[order]
			onSite(t, func(s *site) []saga.Part {
				d = define(s, s.j.step("a", nil, nil), step(s.j), s.j.step("c", nil, nil))
				return []saga.Part{d}
			}, func(s *site) {
				s.start(d, "1")
				require.NoError(s, s.r.Cancel(s.Context(), "1"))
				require.NoError(s, s.r.Cancel(s.Context(), "1"))
				began := time.Now()
				_, err := s.wait(d, "1")
				require.ErrorIs(s, err, saga.ErrCompensated)
				require.ErrorContains(s, err, "cancelled")
				want := []string{"a", "b", "-b", "-a"}
				if name == "await" {
					want = []string{"a", "-a"}
				}
				require.Equal(s, want, s.j.all())
				require.LessOrEqual(s, time.Since(began), 21*time.Second)
				require.NoError(s, s.r.Cancel(s.Context(), "1"), "it is compensated already")
			})
		})
	}
}

func TestCancelIsRefusedPastThePivotAndAtTheEnd(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		pivot := s.j.step("pivot", nil, nil)
		pivot.Pivot = true
		d = define(s, pivot, approval(0))
		return []saga.Part{d}
	}, func(s *site) {
		s.start(d, "1")
		require.ErrorIs(s, s.r.Cancel(s.Context(), "1"), saga.ErrStatus)
		require.NoError(s, saga.Send(s.Context(), s.r, "1", "approved", 1))
		_, err := s.wait(d, "1")
		require.NoError(s, err)
		require.ErrorIs(s, s.r.Cancel(s.Context(), "1"), saga.ErrStatus)
		require.ErrorIs(s, s.r.Cancel(s.Context(), "2"), saga.ErrNotFound)
	})
}

func TestUndoIsToldWhyTheSagaTurnedBack(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		d = define(s, s.j.step("a", func(ctx context.Context) error {
			a, _ := saga.Current(ctx)
			require.Empty(s, a.Cause)
			return nil
		}, func(ctx context.Context) error {
			a, _ := saga.Current(ctx)
			s.j.add(a.Cause)
			return nil
		}), s.j.step("b", fails(-1, saga.Permanent(errors.New("no room"))), nil))
		return []saga.Part{d}
	}, func(s *site) {
		s.start(d, "1")
		_, err := s.wait(d, "1")
		require.ErrorIs(s, err, saga.ErrCompensated)
		require.Equal(s, []string{"a", "b", "-a", "no room"}, s.j.all())
	})
}

func TestExecuteRunsOnTheCallersGoroutineAndLeavesWithItsContext(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		d = define(s, s.j.step("a", nil, nil), s.j.step("b", func(context.Context) error { <-time.After(time.Second); return nil }, nil),
			s.j.step("c", func(context.Context) error { <-time.After(time.Second); return nil }, nil))
		return []saga.Part{d}
	}, func(s *site) {
		res, err := saga.Execute(s.Context(), s.r, d, "1", order{N: 1})
		require.NoError(s, err)
		require.Equal(s, 4, res.State.N)
		require.Len(s, res.History, 3)
		again, err := saga.Execute(s.Context(), s.r, d, "1", order{N: 7})
		require.NoError(s, err)
		require.Equal(s, res, again)

		ctx, cancel := context.WithTimeout(s.Context(), 500*time.Millisecond)
		defer cancel()
		_, err = saga.Execute(ctx, s.r, d, "2", order{})
		require.ErrorIs(s, err, context.DeadlineExceeded)
		res, err = s.wait(d, "2")
		require.NoError(s, err)
		require.Equal(s, 3, res.State.N)
	})
}

func TestAnUndoSeesNothingOfTheAttemptThatFailed(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		a := s.j.step("a", nil, nil)
		a.Undo = func(_ context.Context, o *order) error { require.Equal(s, 1, o.N); return nil }
		d = define(s, a, saga.Step[order]{Name: "b", Do: func(_ context.Context, o *order) error {
			o.N = 999
			return saga.Permanent(errBoom)
		}})
		return []saga.Part{d}
	}, func(s *site) {
		res, err := saga.Execute(s.Context(), s.r, d, "1", order{})
		require.ErrorIs(s, err, saga.ErrCompensated)
		require.Equal(s, 1, res.State.N)
	})
}
