package saga_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

// branch notes "name" and "-name:result" and returns result, unless do says otherwise.
func (j *journal) branch(name string, result int, do func(ctx context.Context) error) saga.Branch[order, int] {
	return saga.Branch[order, int]{
		Name: name,
		Do: func(ctx context.Context, o order) (int, error) {
			j.add(name)
			o.N = -1000
			if do != nil {
				if err := do(ctx); err != nil {
					return 0, err
				}
			}
			return result, nil
		},
		Merge: func(o *order, r int) { o.N = 10*o.N + r },
		Undo: func(ctx context.Context, _ order, r int) error {
			a, _ := saga.Current(ctx)
			j.add("-" + a.Step + ":" + string(rune('0'+r)))
			return nil
		},
	}
}

func naps(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func TestBranchesRunAtOnceAndAreMergedInTheirOrder(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		d = define(s, saga.Parallel("group", s.j.branch("x", 1, naps(3*time.Second)), s.j.branch("y", 2, naps(time.Second)),
			s.j.branch("z", 3, naps(2*time.Second))), s.j.step("after", nil, nil))
		return []saga.Part{d}
	}, func(s *site) {
		began := time.Now()
		s.start(d, "1")
		res, err := s.wait(d, "1")
		require.NoError(s, err)
		require.Equal(s, 124, res.State.N)
		require.Equal(s, 3*time.Second, time.Since(began))
		var steps []string
		for _, e := range res.History {
			steps = append(steps, e.Step)
		}
		require.Equal(s, []string{"group/y", "group/z", "group/x", "after"}, steps)
	})
}

func TestABranchIsTriedAgainByItselfAndItsSiblingsAreNot(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		key := ""
		d = define(s, saga.Parallel("group", s.j.branch("x", 1, nil), s.j.branch("y", 2, func(ctx context.Context) error {
			if key != "" {
				require.Equal(s, key, saga.IdempotencyKey(ctx))
				return nil
			}
			key = saga.IdempotencyKey(ctx)
			require.Equal(s, "1/group/y/do", key)
			return errBoom
		})))
		return []saga.Part{d}
	}, func(s *site) {
		s.start(d, "1")
		require.Zero(s, s.r.Stats().Active, "between attempts it holds nothing")
		res, err := s.wait(d, "1")
		require.NoError(s, err)
		require.Equal(s, 12, res.State.N)
		all := s.j.all()
		slices.Sort(all)
		require.Equal(s, []string{"x", "y", "y"}, all)
	})
}

// Case 23 of the anchors: a branch fails for good while its siblings run.
func TestABranchThatFailsForGoodStopsItsSiblingsAndTheGroupIsUndone(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		d = define(s, s.j.step("a", nil, nil), saga.Parallel("group",
			s.j.branch("done", 1, nil),
			s.j.branch("slow", 2, naps(20*time.Second)),
			s.j.branch("fails", 3, func(ctx context.Context) error {
				<-time.After(time.Second)
				return saga.Permanent(errBoom)
			}),
			s.j.branch("deaf", 4, func(context.Context) error { <-time.After(2 * time.Second); return nil })))
		return []saga.Part{d}
	}, func(s *site) {
		began := time.Now()
		s.start(d, "1")
		res, err := s.wait(d, "1")
		require.ErrorIs(s, err, saga.ErrCompensated)
		require.ErrorContains(s, err, "boom")
		require.Less(s, time.Since(began), 3*time.Second)
		all := s.j.all()
		require.Equal(s, []string{"-group/deaf:4", "-group/slow:0", "-group/done:1", "-a"}, all[len(all)-4:])
		require.Len(s, all, 9)
		require.Equal(s, 2, res.State.N, "branches get the state by value")
	})
}

func TestABranchWithNoAttemptLeftPastThePivotIsStuckUntilItIsRepaired(t *testing.T) {
	for name, repair := range map[string]func(*saga.Runner, context.Context, string) error{
		"retry": (*saga.Runner).Retry, "skip": (*saga.Runner).Skip,
	} {
		t.Run(name, func(t *testing.T) {
			var d *saga.Definition[order]
			var healed atomic.Bool
			onSite(t, func(s *site) []saga.Part {
				pivot := s.j.step("pivot", nil, nil)
				pivot.Pivot = true
				x, y := s.j.branch("x", 1, nil), s.j.branch("y", 2, func(context.Context) error {
					if healed.Load() {
						return nil
					}
					return saga.Permanent(errBoom)
				})
				x.Undo, y.Undo = nil, nil
				d = define(s, pivot, saga.Parallel("group", x, y))
				return []saga.Part{d}
			}, func(s *site) {
				s.start(d, "1")
				_, err := s.wait(d, "1")
				require.ErrorIs(s, err, saga.ErrStuck)
				healed.Store(true)
				require.NoError(s, repair(s.r, s.Context(), "1"))
				res, err := s.wait(d, "1")
				require.NoError(s, err)
				want, calls := 112, 4
				if name == "skip" {
					want, calls = 11, 3
				}
				require.Equal(s, want, res.State.N)
				require.Len(s, s.j.all(), calls)
			})
		})
	}
}

func TestAfterACrashOnlyTheBranchesThatWereUnderWayRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		cable := &link{Store: store}
		first := true
		d := define(t, saga.Parallel("group", j.branch("x", 1, nil), j.branch("y", 2, func(ctx context.Context) error {
			if !first {
				return nil
			}
			first = false
			<-time.After(time.Second)
			cable.cut.Store(true)
			<-ctx.Done()
			return ctx.Err()
		})))
		dead, healthy := runner(t, cable, d), runner(t, store, d)
		stop := running(t, dead)
		require.NoError(t, saga.Start(t.Context(), dead, d, "1", order{}))
		synctest.Wait()
		defer stop()
		defer running(t, healthy)()
		res, err := saga.Wait(t.Context(), healthy, d, "1")
		require.NoError(t, err)
		require.Equal(t, 12, res.State.N)
		all := j.all()
		slices.Sort(all)
		require.Equal(t, []string{"x", "y", "y"}, all)
	})
}

// What a node may have done before it was lost is undone, though nobody saw it.
func TestABranchWhoseNodeWasLostForTheLastTimeIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		store := memsaga.New()
		x := j.branch("x", 1, nil)
		x.Retry.MaxAttempts = 1
		d := define(t, j.step("a", nil, nil), saga.Parallel("group", x))
		in, err := d.NewInstance("1", order{})
		require.NoError(t, err)
		in.Step, in.Owner = "group", "dead"
		_, err = store.Create(t.Context(), in, time.Second)
		require.NoError(t, err)
		<-time.After(2 * time.Second)
		r := runner(t, store, d)
		defer running(t, r)()
		_, err = saga.Wait(t.Context(), r, d, "1")
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.ErrorContains(t, err, "the node was lost during attempt 1")
		require.Equal(t, []string{"-group/x:0", "-a"}, j.all())
	})
}

// family is a parent whose second step is a child of two steps.
func family(s *site, last, childLast saga.Step[order]) (parent, child *saga.Definition[order]) {
	child, err := saga.Define("child", 1, s.j.step("c1", nil, nil), childLast)
	require.NoError(s, err)
	return define(s, s.j.step("a", nil, nil), saga.Child("sub", child,
		func(o order) order { return order{N: 10 * o.N} }, func(o *order, c order) { o.N += c.N }), last), child
}

func TestAChildRunsAndItsStateIsTakenOver(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		d, _ = family(s, s.j.step("b", nil, nil), s.j.step("c2", naps(20*time.Second), nil))
		return []saga.Part{d}
	}, func(s *site) {
		began := time.Now()
		s.start(d, "1")
		require.EqualValues(s, 1, s.r.Stats().Active, "only the child is worked on")
		res, err := s.wait(d, "1")
		require.NoError(s, err)
		require.Equal(s, 1+12+1, res.State.N)
		require.Equal(s, 20*time.Second, time.Since(began))
		require.Equal(s, []string{"a", "c1", "c2", "b"}, s.j.all())
		require.Equal(s, "1", load(s, s.store, "1/sub").Parent)
	})
}

func TestAChildThatFailsTurnsItsParentBack(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		var child *saga.Definition[order]
		d, child = family(s, s.j.step("b", nil, nil), s.j.step("c2", fails(-1, saga.Permanent(errBoom)), nil))
		return []saga.Part{d, child}
	}, func(s *site) {
		s.start(d, "1")
		_, err := s.wait(d, "1")
		require.ErrorIs(s, err, saga.ErrCompensated)
		require.ErrorContains(s, err, "boom")
		require.Equal(s, []string{"a", "c1", "c2", "-c1", "-a"}, s.j.all())
	})
}

func TestAChildThatCompletedIsUndoneAsAWhole(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		d, _ = family(s, s.j.step("b", fails(-1, saga.Permanent(errBoom)), nil), s.j.step("c2", nil, nil))
		return []saga.Part{d}
	}, func(s *site) {
		s.start(d, "1")
		_, err := s.wait(d, "1")
		require.ErrorIs(s, err, saga.ErrCompensated)
		require.Equal(s, []string{"a", "c1", "c2", "b", "-c2", "-c1", "-a"}, s.j.all())
		require.Equal(s, saga.Compensated, load(s, s.store, "1/sub").Status)
	})
}

func TestCancelOfAParentTurnsItsChildBack(t *testing.T) {
	var d *saga.Definition[order]
	onSite(t, func(s *site) []saga.Part {
		d, _ = family(s, s.j.step("b", nil, nil), approval(0))
		return []saga.Part{d}
	}, func(s *site) {
		s.start(d, "1")
		require.NoError(s, s.r.Cancel(s.Context(), "1"))
		_, err := s.wait(d, "1")
		require.ErrorIs(s, err, saga.ErrCompensated)
		require.Equal(s, []string{"a", "c1", "-c1", "-a"}, s.j.all())
	})
}

func TestDefineRefusesWhatCannotBeInASpecialStep(t *testing.T) {
	var j journal
	nothing := func(context.Context, *order) error { return nil }
	child, err := saga.Define("child", 1, saga.Step[order]{Name: "p", Do: nothing, Pivot: true})
	require.NoError(t, err)
	broken := approval(-1)
	broken.Do = nothing
	late := saga.Step[order]{Name: "late", Do: nothing, OnTimeout: nothing}
	group := saga.Parallel("group", j.branch("x", 1, nil), saga.Branch[order, int]{Name: "x"}, nil)
	group.Undo = nothing
	empty := saga.Parallel[order]("empty")
	twice := approval(0)
	twice.Name = "twice"
	_, err = saga.Define("order", 1, broken, late, group, empty, twice,
		saga.Await[order, int]("event", "a/b", 0, nil),
		saga.SleepUntil[order]("sleep", nil),
		saga.Child("child", child, func(o order) order { return o }, nil),
		saga.Child[order, order]("none", nil, nil, nil))
	for _, want := range []string{
		`step "approval": Do is set`, `the timeout is -1`, `step "late": OnTimeout is set`, `step "group": Undo is set`,
		`the name "x" is used before`, `step "group/x": Do is nil`, `branch 2: the name "" is empty`, `step "empty": the group is empty`,
		`the event "approved" is awaited before`, `step "event": Await has no function`, `the event "a/b"`,
		`step "sleep": SleepUntil has no function`, `the child has a pivot`, `the definition of the child is nil`, `Child has no function`,
	} {
		require.ErrorContains(t, err, want)
	}
	inTx, err := saga.Define("order", 1, saga.Step[order]{Name: "a", Do: nothing, InTx: true})
	require.NoError(t, err)
	_, err = saga.NewRunner(memsaga.New(), saga.Config{}, inTx)
	require.ErrorContains(t, err, "is no TxStore")
}
