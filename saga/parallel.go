package saga

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Branch is one of several effects that a Parallel group makes at the same time. It sees the State by value and returns a
// result, which is stored as JSON; the results are merged into the State one after the other, in the order of the
// branches, when all are there. Attempts, schedules and keys are the branch's own: its step is called "group/branch".
type Branch[State, R any] struct {
	// Name is unique in the group; it contains no slash.
	Name string
	// Do makes the effect. What it changes in s is lost. Errors are judged as those of Step.Do. Required.
	Do func(ctx context.Context, s State) (R, error)
	// Merge writes the result to the State. It must not have effects, and runs again if its commit was lost. Nil means
	// that the State does not need it.
	Merge func(s *State, r R)
	// Undo makes up for Do. It gets Do's result, or the zero R where an attempt failed in doubt. Nil means that nothing is
	// ever to be undone.
	Undo func(ctx context.Context, s State, r R) error
	// Retry, UndoRetry and Timeout are those of Step.
	Retry, UndoRetry Retry
	Timeout          time.Duration
}

// Member is a Branch of any result.
type Member[State any] interface {
	member(*State) branch[State]
}

// Parallel is a step that runs its branches at once, each on a goroutine, and is done when all are. A result is recorded as
// soon as it is there: a crash repeats only the branches that were under way. If a branch fails for good, the contexts of the
// others are cancelled, and once they have returned the branches that were done, or are in doubt, are undone one after the
// other in reverse order. When and Pivot of the Step may be set; the rest belongs to the branches.
func Parallel[State any](name string, branches ...Member[State]) Step[State] {
	sp := &special[State]{kind: groupStep}
	for _, b := range branches {
		if b == nil {
			b = Branch[State, struct{}]{} // it is refused for having no name
		}
		sp.branches = append(sp.branches, b.member(nil))
	}
	return Step[State]{Name: name, special: sp}
}

// branch is a Branch with its result in JSON.
type branch[State any] struct {
	name             string
	do               func(ctx context.Context, s State) (json.RawMessage, error)
	merge            func(s *State, r json.RawMessage) error
	undo             func(ctx context.Context, s State, r json.RawMessage) error
	retry, undoRetry Retry
	timeout          time.Duration
}

func (b Branch[State, R]) member(*State) branch[State] {
	out := branch[State]{name: b.Name, retry: b.Retry, undoRetry: b.UndoRetry, timeout: b.Timeout}
	decode := func(data json.RawMessage) (r R, err error) {
		if len(data) > 0 {
			if err = json.Unmarshal(data, &r); err != nil {
				err = &corruptError{fmt.Errorf("the stored result of branch %q cannot be decoded: %w", b.Name, err)}
			}
		}
		return r, err
	}
	if b.Do != nil {
		out.do = func(ctx context.Context, s State) (json.RawMessage, error) {
			r, err := b.Do(ctx, s)
			if err != nil {
				return nil, err
			}
			return json.Marshal(&r)
		}
	}
	if b.Merge != nil {
		out.merge = func(s *State, data json.RawMessage) error {
			r, err := decode(data)
			if err == nil {
				b.Merge(s, r)
			}
			return err
		}
	}
	if b.Undo != nil {
		out.undo = func(ctx context.Context, s State, data json.RawMessage) error {
			r, err := decode(data)
			if err != nil {
				return err
			}
			return b.Undo(ctx, s, r)
		}
	}
	return out
}

func (b branch[State]) planned(attempts int) planned {
	if b.timeout == 0 {
		b.timeout = 30 * time.Second
	}
	return planned{
		name: b.name, undo: b.undo != nil, timeout: b.timeout,
		retry: b.retry.withDefaults(attempts), undoRetry: b.undoRetry.withDefaults(20),
	}
}
