package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
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
	// When decides, on the state as the step is reached, whether the step runs at all; nil means always. A step that is
	// left out is not undone either. It must not have effects, and a panic of it parks the instance.
	When func(s State) bool
	// OnTimeout goes on in place of an Await whose event did not come in time; nil lets the step fail with ErrTimeout,
	// without further attempts. It is refused for other steps.
	OnTimeout func(ctx context.Context, s *State) error
	// InTx runs Do and Undo inside the store's own transaction, which also records them: what they write through that
	// transaction happens exactly once. It takes a store that is a TxStore; the attempt has to end within a lease.
	InTx bool

	special *special[State] // what Await, SleepUntil, Parallel or Child made of it
}

// kind says how a step is carried out.
type kind uint8

const (
	plainStep kind = iota
	awaitStep
	sleepStep
	groupStep
	childStep
)

// special is a step that is more than a Do.
type special[State any] struct {
	kind     kind
	event    string
	timeout  time.Duration
	receive  func(ctx context.Context, s *State, data json.RawMessage) error
	until    func(s State) time.Time
	branches []branch[State]
	child    *childOf[State]
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
	plain bool // a State survives its JSON form unchanged
}

// definition is a *Definition of any State.
type definition interface {
	Part
	Ref() Ref
	plan() *plan
	omits(step int, state json.RawMessage) (bool, error)
	attempt(ctx context.Context, c call) (answer, error)
	wakeAt(step int, state json.RawMessage) (time.Time, error)
	branchDo(ctx context.Context, step, branch int, state json.RawMessage) (json.RawMessage, error)
	branchUndo(ctx context.Context, step, branch int, state, result json.RawMessage) error
	merge(step int, at Progress) (json.RawMessage, error)
	childStart(step int, id string, state json.RawMessage) (Instance, error)
	childMerge(step int, state, child json.RawMessage) (json.RawMessage, error)
}

// Define makes a definition from steps: a Step literal each, or what Await, SleepUntil, Parallel or Child return. State
// must survive encoding/json. The error joins everything that is wrong: no name, a version below 1, no steps, steps
// without Do, without a name or with one that was used before or has a slash, negative pauses, a second pivot, an Undo
// after the pivot, an empty group, and what else the documentation of a step forbids.
func Define[State any](name string, version int, steps ...Step[State]) (*Definition[State], error) {
	d := &Definition[State]{ref: Ref{name, version}, steps: slices.Clone(steps), plain: survivesJSON(reflect.TypeFor[State](), 8)}
	d.plans = plan{pivot: slices.IndexFunc(steps, func(s Step[State]) bool { return s.Pivot })}
	if err := d.validate(); err != nil {
		return nil, err
	}
	for i, s := range steps {
		d.plans.steps = append(d.plans.steps, s.planned(d.plans.pastPivot(i)))
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

// Limits bounds the instances of a definition.
type Limits struct {
	// Deadline is how long after its start an instance may still be before its pivot: what is under way then is cut off
	// through its context, and the instance turns back with ErrDeadline. A result that comes all the same stands. It
	// bounds neither compensation nor what follows the pivot. 0 means none; negative is refused.
	Deadline time.Duration
	// Concurrency is how many instances of the definition, in this version, a runner works on at once, within its own
	// Concurrency. 0 means no further limit; negative is refused.
	Concurrency int
}

// WithLimits is the definition with limits in place of those it had. They are not stored: instances under way follow the
// definition of the node that works on them. The error joins what is negative.
func (d *Definition[State]) WithLimits(l Limits) (*Definition[State], error) {
	var faults []error
	if l.Deadline < 0 {
		faults = append(faults, fmt.Errorf("saga %q: Limits.Deadline is %v: it must not be negative", d.ref.Name, l.Deadline))
	}
	if l.Concurrency < 0 {
		faults = append(faults, fmt.Errorf("saga %q: Limits.Concurrency is %d: it must not be negative", d.ref.Name, l.Concurrency))
	}
	limited := *d
	limited.plans.limits = l
	return &limited, errors.Join(faults...)
}

// planned is what the state machine needs to know of a step, defaults filled in.
func (s Step[State]) planned(pastPivot bool) planned {
	attempts := 5
	if pastPivot {
		attempts = -1
	}
	if s.Timeout == 0 {
		s.Timeout = 30 * time.Second
	}
	p := planned{
		name: s.Name, undo: s.Undo != nil, conditional: s.When != nil, timeout: s.Timeout, inTx: s.InTx,
		retry: s.Retry.withDefaults(attempts), undoRetry: s.UndoRetry.withDefaults(20),
	}
	if sp := s.special; sp != nil {
		p.kind, p.event, p.wait, p.late = sp.kind, sp.event, sp.timeout, s.OnTimeout != nil
		for _, b := range sp.branches {
			p.branches = append(p.branches, b.planned(attempts))
		}
		if sp.child != nil {
			p.child, p.event = sp.child.def, childEvent(s.Name)
			p.ownUndo, p.undo = p.undo, true // a child that runs must not be left behind
		}
	}
	return p
}

// Ref is the name and version.
func (d *Definition[State]) Ref() Ref { return d.ref }

// NewInstance is the instance that Start creates, for stores that create one inside the caller's own transaction. The id
// is 1 to 255 bytes of UTF-8, so that every database takes it as a key, and state must have a JSON form.
func (d *Definition[State]) NewInstance(id string, state State) (Instance, error) {
	return d.newInstance(id, &state)
}

func (d *Definition[State]) newInstance(id string, state *State) (Instance, error) {
	if err := checkID(d.ref.Name, id); err != nil {
		return Instance{}, err
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

func checkID(name, id string) error {
	if id == "" || len(id) > 255 || !utf8.ValidString(id) {
		return fmt.Errorf("saga %q: the id of an instance is %q: it must be 1 to 255 bytes of UTF-8", name, id)
	}
	return nil
}

func (d *Definition[State]) plan() *plan { return &d.plans }

func (d *Definition[State]) setUp(r *Runner) error {
	if d == nil {
		return errors.New("saga: NewRunner: a definition is nil")
	}
	if was, twice := r.defs[d.ref]; twice && !r.implied[d.ref] {
		return fmt.Errorf("saga: NewRunner: definition %q version %d is given twice", d.ref.Name, d.ref.Version)
	} else if !twice || was != definition(d) {
		delete(r.implied, d.ref)
		r.register(d)
	}
	delete(r.implied, d.ref)
	return errors.Join(d.setUpSteps(r)...)
}

// setUpSteps makes the children known to the runner, and checks that its store can do what the steps ask.
func (d *Definition[State]) setUpSteps(r *Runner) (faults []error) {
	_, canTx := r.store.(TxStore)
	for _, s := range d.steps {
		if s.InTx && !canTx {
			faults = append(faults, fmt.Errorf("saga: NewRunner: definition %q: step %q: InTx is set, and %T is no TxStore",
				d.ref.Name, s.Name, r.store))
		}
		if s.special == nil || s.special.child == nil {
			continue
		}
		child := s.special.child.def
		if r.defs[child.Ref()] == nil {
			faults = append(faults, child.setUp(r))
			r.implied[child.Ref()] = true
		}
	}
	return faults
}
