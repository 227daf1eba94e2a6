package saga_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

// script is how a step behaves: what its calls return, one after the other, and nil from then on.
type script struct {
	do, undo      []string // of "boom", "permanent", "rejected", "panic"
	noUndo        bool
	pivot         bool
	limit, limit2 int
	kind          string // "" for a plain step; omitted, awaits an event that was sent, or one that never comes
}

func drawScripts(rt *rapid.T) []script {
	errs := rapid.SliceOfN(rapid.SampledFrom([]string{"boom", "boom", "permanent", "rejected", "panic"}), 0, 4)
	pivot := rapid.IntRange(-3, 4).Draw(rt, "pivot")
	scripts := make([]script, rapid.IntRange(1, 5).Draw(rt, "steps"))
	for i := range scripts {
		scripts[i] = script{
			do: errs.Draw(rt, "do"), undo: errs.Draw(rt, "undo"), pivot: i == pivot,
			noUndo: (pivot >= 0 && i > pivot) || rapid.Bool().Draw(rt, "noUndo"),
			kind:   rapid.SampledFrom([]string{"", "", "", "omitted", "event", "silence"}).Draw(rt, "kind"),
			limit:  rapid.IntRange(1, 3).Draw(rt, "limit"), limit2: rapid.IntRange(1, 3).Draw(rt, "limit2"),
		}
	}
	return scripts
}

// oracle says by plain recursion what a saga of these scripts does.
func oracle(scripts []script) (status saga.Status, calls []string) {
	for i, s := range scripts {
		ok, doubt := s.kind == "omitted", false
		if s.kind == "" || s.kind == "event" {
			ok, doubt = attempts(fmt.Sprint(i), s.do, s.limit, &calls)
		}
		if ok {
			continue
		}
		if slices.ContainsFunc(scripts[:i], func(s script) bool { return s.pivot }) {
			return saga.Stuck, calls
		}
		if !doubt {
			i--
		}
		for ; i >= 0; i-- {
			if scripts[i].noUndo || scripts[i].kind == "omitted" {
				continue
			}
			if ok, _ := attempts(fmt.Sprint("-", i), scripts[i].undo, scripts[i].limit2, &calls); !ok {
				return saga.Stuck, calls
			}
		}
		return saga.Compensated, calls
	}
	return saga.Completed, calls
}

func attempts(name string, script []string, limit int, calls *[]string) (ok, doubt bool) {
	counted := 0
	for i := 0; ; i++ {
		*calls = append(*calls, name)
		if i >= len(script) {
			return true, false
		}
		switch script[i] {
		case "rejected":
			continue
		case "permanent":
			return false, doubt
		}
		doubt = true
		if counted++; counted == limit {
			return false, doubt
		}
	}
}

func (s script) step(i int, j *journal) saga.Step[order] {
	run := func(name string, results []string) func(context.Context, *order) error {
		return func(context.Context, *order) error {
			j.add(name)
			if len(results) == 0 {
				return nil
			}
			result := results[0]
			results = results[1:]
			switch result {
			case "rejected":
				return refusal{}
			case "permanent":
				return saga.Permanent(errBoom)
			case "panic":
				panic("boom")
			default:
				return errBoom
			}
		}
	}
	step := saga.Step[order]{
		Name: fmt.Sprint(i), Do: run(fmt.Sprint(i), s.do), Undo: run(fmt.Sprint("-", i), s.undo), Pivot: s.pivot,
		Retry: saga.Retry{MaxAttempts: s.limit}, UndoRetry: saga.Retry{MaxAttempts: s.limit2},
	}
	if s.noUndo {
		step.Undo = nil
	}
	switch s.kind {
	case "omitted":
		step.When = func(order) bool { return false }
	case "event", "silence":
		do := step.Do
		wait := saga.Await(step.Name, fmt.Sprint(s.kind, i), time.Minute, func(ctx context.Context, o *order, _ int) error { return do(ctx, o) })
		wait.Undo, wait.Pivot, wait.Retry, wait.UndoRetry = step.Undo, step.Pivot, step.Retry, step.UndoRetry
		step = wait
	}
	return step
}

func TestEverySagaDoesWhatItsStepsSay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		scripts := drawScripts(rt)
		var j journal
		var res saga.Result[order]
		var err error
		synctest.Test(t, func(t *testing.T) {
			steps := make([]saga.Step[order], len(scripts))
			for i, s := range scripts {
				steps[i] = s.step(i, &j)
			}
			d := define(t, steps...)
			r := runner(t, memsaga.New(), d)
			require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
			for i := range scripts {
				require.NoError(t, saga.Send(t.Context(), r, "1", fmt.Sprint("event", i), i))
			}
			defer running(t, r)()
			res, err = saga.Wait(t.Context(), r, d, "1")
		})
		status, calls := oracle(scripts)
		require.Equal(rt, calls, j.all())
		require.Equal(rt, status, res.Status)
		attempted := slices.DeleteFunc(slices.Clone(res.History), func(e saga.Event) bool {
			return e.Attempt == 0 || e.Error == saga.ErrTimeout.Error()
		})
		require.Len(rt, attempted, len(calls))
		want := map[saga.Status]error{saga.Compensated: saga.ErrCompensated, saga.Stuck: saga.ErrStuck}[status]
		require.ErrorIs(rt, err, want)
	})
}
