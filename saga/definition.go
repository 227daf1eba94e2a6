package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Step is one unit of a saga: an effect and the effect that makes up for it. Do and Undo run at least once each; both
// find an IdempotencyKey in their context and must bear being repeated with it. Policies apply inside: wrap the call
// that Do makes. Steps are fixed once defined.
type Step[State any] struct {
	// Name is unique in the definition and stored with each instance: renaming a step takes a new version. It contains
	// no slash, which separates the parts of an idempotency key.
	Name string
	// Do makes the effect. What it writes to s is stored if it returns nil and discarded otherwise. An error that reports
	// Permanent() ends the attempts; one that reports Rejected() did not run and does not count; RetryAfter() delays the
	// next attempt at least so long. The error itself is asked, not what it wraps. Required.
	Do func(ctx context.Context, s *State) error
	// Undo makes up for Do, or returns nil where there is nothing to make up for: it also runs for a step whose Do
	// failed in doubt. It sees the state as it was stored last. Nil means that nothing is ever to be undone.
	Undo func(ctx context.Context, s *State) error
	// Retry is the schedule of Do. MaxAttempts defaults to 5, and to no limit for steps after the pivot.
	Retry Retry
	// UndoRetry is the schedule of Undo. MaxAttempts defaults to 20.
	UndoRetry Retry
	// Timeout bounds each attempt through its context; 0 means 30s, negative means none. The runner waits for an attempt
	// that ignores its context, so that it never runs twice at once on a node.
	Timeout time.Duration
	// Pivot makes this step the point of no return: once it is done the saga only goes forward. At most one step.
	Pivot bool
}

// Retry is the schedule of attempts at a step. It is kept in the store: a waiting instance holds no goroutine, no timer
// and no lease, and any node makes the next attempt. The pause doubles from Initial to Max, and a random part of up to a
// half is taken off each.
type Retry struct {
	// MaxAttempts is how often the step is tried; 0 means the default of the field, negative means without limit.
	MaxAttempts int
	// Initial is the pause after the first failure; 0 means 100ms. Negative is refused.
	Initial time.Duration
	// Max bounds the pause; 0 means 10s or Initial, whichever is longer. Negative is refused.
	Max time.Duration
}

func (r Retry) withDefaults(attempts int) Retry {
	if r.MaxAttempts == 0 {
		r.MaxAttempts = attempts
	}
	if r.Initial == 0 {
		r.Initial = 100 * time.Millisecond
	}
	if r.Max == 0 {
		r.Max = max(10*time.Second, r.Initial)
	}
	return r
}

// Definition is a saga of a given version: its name and steps. It is immutable and safe for concurrent use; create it
// with Define. Instances keep the version they were started with, so a process that must finish old instances registers
// the old version beside the new one.
type Definition[State any] struct {
	ref   Ref
	steps []Step[State]
	plans plan
}

// definition is a *Definition of any State.
type definition interface {
	Ref() Ref
	plan() plan
	attempt(ctx context.Context, step int, d Direction, state json.RawMessage) (json.RawMessage, error)
}

// Define makes a definition. State must survive encoding/json. The error joins everything that is wrong: no name, a
// version below 1, no steps, steps without Do, without a name or with one that was used before or has a slash, negative pauses, a second pivot, an
// Undo after the pivot.
func Define[State any](name string, version int, steps ...Step[State]) (*Definition[State], error) {
	d := &Definition[State]{ref: Ref{name, version}, steps: slices.Clone(steps)}
	d.plans = plan{pivot: slices.IndexFunc(steps, func(s Step[State]) bool { return s.Pivot })}
	if err := d.validate(); err != nil {
		return nil, err
	}
	for i, s := range steps {
		attempts := 5
		if d.plans.pastPivot(i) {
			attempts = -1
		}
		if s.Timeout == 0 {
			s.Timeout = 30 * time.Second
		}
		d.plans.steps = append(d.plans.steps, planned{
			name: s.Name, undo: s.Undo != nil, timeout: s.Timeout,
			retry: s.Retry.withDefaults(attempts), undoRetry: s.UndoRetry.withDefaults(20),
		})
	}
	return d, nil
}

// MustDefine is Define for package variables: it panics where Define returns an error.
func MustDefine[State any](name string, version int, steps ...Step[State]) *Definition[State] {
	d, err := Define(name, version, steps...)
	if err != nil {
		panic(err)
	}
	return d
}

func (d *Definition[State]) validate() error {
	var faults []error
	require := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("saga %q: %s", d.ref.Name, fmt.Sprintf(format, args...)))
		}
	}
	require(d.ref.Name != "", "the name is empty")
	require(d.ref.Version >= 1, "version is %d: it must be at least 1", d.ref.Version)
	require(len(d.steps) > 0, "it has no steps")
	seen := map[string]bool{}
	for i, s := range d.steps {
		require(s.Name != "", "step %d has no name", i)
		require(!strings.Contains(s.Name, "/"), "step %q: the name contains a slash", s.Name)
		require(!seen[s.Name], "step %d: the name %q is used before", i, s.Name)
		seen[s.Name] = true
		require(s.Do != nil, "step %q: Do is nil", s.Name)
		require(!s.Pivot || i == d.plans.pivot, "step %q: Pivot is set, but step %d is the pivot already", s.Name, d.plans.pivot)
		require(s.Undo == nil || !d.plans.pastPivot(i), "step %q: Undo is set after the pivot: it would never run", s.Name)
		for field, r := range map[string]Retry{"Retry": s.Retry, "UndoRetry": s.UndoRetry} {
			require(r.Initial >= 0, "step %q: %s.Initial is %v: it must not be negative", s.Name, field, r.Initial)
			require(r.Max == 0 || r.Max >= r.Initial, "step %q: %s.Max is %v: it must not be below Initial", s.Name, field, r.Max)
		}
	}
	return errors.Join(faults...)
}

// Ref is the name and version.
func (d *Definition[State]) Ref() Ref { return d.ref }

// NewInstance is the instance that Start creates, for stores that create one inside the caller's own transaction. The id
// is 1 to 255 bytes of UTF-8, so that every database takes it as a key, and state must have a JSON form.
func (d *Definition[State]) NewInstance(id string, state State) (Instance, error) {
	if id == "" || len(id) > 255 || !utf8.ValidString(id) {
		return Instance{}, fmt.Errorf("saga %q: the id of an instance is %q: it must be 1 to 255 bytes of UTF-8", d.ref.Name, id)
	}
	data, err := json.Marshal(state)
	if err != nil {
		return Instance{}, fmt.Errorf("saga %q: state of instance %q: %w", d.ref.Name, id, err)
	}
	return Instance{
		ID: id, Ref: d.ref,
		Progress: Progress{Status: Running, Direction: Forward, Step: d.steps[0].Name, State: data},
	}, nil
}

func (d *Definition[State]) plan() plan { return d.plans }

func (d *Definition[State]) setUp(r *Runner) error {
	if d == nil {
		return errors.New("saga: NewRunner: a definition is nil")
	}
	if _, twice := r.defs[d.ref]; twice {
		return fmt.Errorf("saga: NewRunner: definition %q version %d is given twice", d.ref.Name, d.ref.Version)
	}
	r.defs[d.ref] = d
	r.known = append(r.known, d.ref)
	return nil
}

// attempt runs one direction of a step on a state of its own and returns the state to store.
func (d *Definition[State]) attempt(ctx context.Context, step int, dir Direction, state json.RawMessage) (json.RawMessage, error) {
	fn := d.steps[step].Do
	if dir == Backward {
		fn = d.steps[step].Undo
	}
	if fn == nil {
		return state, nil
	}
	var s State
	if err := json.Unmarshal(state, &s); err != nil {
		return nil, &corruptError{fmt.Errorf("saga %q: the stored state cannot be decoded: %w", d.ref.Name, err)}
	}
	if err := guarded(ctx, fn, &s); err != nil {
		return nil, err
	}
	data, err := json.Marshal(&s)
	if err != nil {
		return nil, fmt.Errorf("saga %q: the state after step %q cannot be encoded: %w", d.ref.Name, d.steps[step].Name, err)
	}
	return data, nil
}

// guarded turns a panic of fn into an error: the runner outlives its steps, and the history shows the stack.
func guarded[State any](ctx context.Context, fn func(context.Context, *State) error, s *State) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(ctx, s)
}
