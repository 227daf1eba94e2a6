package saga

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errOperator is the cause of an instance that a person turned back.
var errOperator = errors.New("aborted by an operator")

// Retry gives the step at which an instance is stuck a fresh round of attempts. It returns ErrStatus unless the instance
// is stuck, ErrNotFound, or ErrFenced if it changed meanwhile. Any node may call it, whether or not it knows the definition.
func (r *Runner) Retry(ctx context.Context, id string) error {
	return r.repair(ctx, id, Retried, func(in Instance) (Progress, error) {
		if in.Status != Stuck {
			return Progress{}, ErrStatus
		}
		if d, ok := r.defs[in.Ref]; ok {
			return d.plan().again(d.plan().index(in.Step), in.Progress), nil
		}
		at := in.Progress
		at.Attempt, at.Rejected = 0, 0
		at.Status = activeIn(at.Direction)
		return at, nil
	})
}

// Skip passes over the step at which an instance is stuck, leaving its effect as it is, and goes on in the same direction.
// Where the definition is not registered the history says so at once, and the next node that knows it does it. Errors are
// those of Retry.
func (r *Runner) Skip(ctx context.Context, id string) error { return r.pass(ctx, id, Skipped) }

// MarkDone says that a person has done, or undone, by hand what the stuck step should have; the instance goes on in the
// same direction. It differs from Skip in what the history says. Errors are those of Skip.
func (r *Runner) MarkDone(ctx context.Context, id string) error { return r.pass(ctx, id, MarkedDone) }

func (r *Runner) pass(ctx context.Context, id string, what Outcome) error {
	return r.repair(ctx, id, what, func(in Instance) (Progress, error) {
		if r.defs[in.Ref] == nil && in.Status == Stuck {
			return ordered(in.Progress, what), nil
		}
		return r.passStuck(in)
	})
}

// Abort stops an instance. One that is before its pivot, running or stuck, turns back and undoes what it did; the step it
// stands at counts as in doubt. One that is stuck later or while being undone ends as Aborted, with what it did left as it
// is. A running one past its pivot and one that has ended are refused with ErrStatus; one that is compensating is left to
// it. A node in the middle of an attempt loses the instance at its next heartbeat, and compensation waits until its lease
// has run out. Where the definition is not registered only what is stuck can be aborted, as by Skip. Other errors are those
// of Skip.
func (r *Runner) Abort(ctx context.Context, id string) error {
	return r.repair(ctx, id, GivenUp, func(in Instance) (Progress, error) {
		known := r.defs[in.Ref] != nil
		switch at := in.Progress; {
		case at.Status == Compensating:
			return at, errNothingToDo
		case at.Status == Stuck && at.Direction == Forward && !known:
			return ordered(at, GivenUp), nil
		case at.Status == Stuck:
			return r.abortStuck(in)
		}
		p, i, err := r.position(in)
		switch {
		case err != nil && in.Status == Running:
			return Progress{}, err
		case in.Status != Running || p.pastPivot(i):
			return Progress{}, ErrStatus
		}
		return p.abandon(i, in.Progress), nil
	})
}

// abortStuck gives up what is stuck. It takes the definition only of an instance that goes forward.
func (r *Runner) abortStuck(in Instance) (Progress, error) {
	at := in.Progress
	if at.Direction == Backward {
		at.Status = Aborted
		return at, nil
	}
	p, i, err := r.position(in)
	if err != nil {
		return at, err
	}
	return p.abandon(i, at), nil
}

// abandon has an instance at step i turn back, or end where it cannot.
func (p *plan) abandon(i int, at Progress) Progress {
	if i < 0 || p.pastPivot(i) {
		at.Status = Aborted
		return at
	}
	at.Doubt = true
	if at.Error == "" {
		at.Error = errOperator.Error()
	}
	return p.turnBack(i, at)
}

var errNothingToDo = errors.New("saga: nothing to do")

func activeIn(d Direction) Status {
	if d == Backward {
		return Compensating
	}
	return Running
}

func errUnknownStep(step string) error {
	return fmt.Errorf("the definition has no step %q: steps were changed without a new version", step)
}

// passStuck moves a stuck instance to the next step of its direction.
func (r *Runner) passStuck(in Instance) (Progress, error) {
	if in.Status != Stuck {
		return Progress{}, ErrStatus
	}
	p, i, err := r.position(in)
	switch {
	case err != nil:
		return Progress{}, err
	case i < 0:
		return Progress{}, errUnknownStep(in.Step)
	}
	at := in.Progress
	at.Status = activeIn(at.Direction)
	if p.steps[i].kind == groupStep && at.Direction == Forward {
		if at.State, err = r.defs[in.Ref].merge(i, at); err != nil {
			return Progress{}, err
		}
	}
	return p.past(i, at), nil
}

// position finds the instance's step in its definition; i is -1 if that no longer has it.
func (r *Runner) position(in Instance) (p *plan, i int, err error) {
	d, ok := r.defs[in.Ref]
	if !ok {
		return p, 0, fmt.Errorf("definition %q version %d is not registered here", in.Name, in.Version)
	}
	return d.plan(), d.plan().index(in.Step), nil
}

// repair changes an instance by hand: fenced like any change, so that it never overwrites what a runner recorded since.
func (r *Runner) repair(ctx context.Context, id string, what Outcome, change func(Instance) (Progress, error)) error {
	fail := func(err error) error {
		return fmt.Errorf("saga %q: repair (%s) of instance %q: %w", r.Config().Name, what, id, err)
	}
	in, _, err := r.store.Load(ctx, id)
	if err != nil {
		return fail(err)
	}
	next, err := change(in)
	if errors.Is(err, errNothingToDo) {
		return nil
	}
	if err != nil {
		return fail(fmt.Errorf("%w (it is %s)", err, in.Status))
	}
	now := time.Now()
	e := Event{Step: in.Step, Direction: in.Direction, Outcome: what, Owner: r.owner, Started: now, Ended: now}
	recorded, err := r.store.Commit(ctx, append([]Transition{{
		ID: id, Token: in.Token, Next: &next, AfterLease: in.Owner != "", Event: &e,
	}}, news(in, next)...))
	switch {
	case err != nil:
		return fail(err)
	case !recorded[0]:
		return fail(ErrFenced)
	}
	in.Progress = next
	r.recorded(in, &e, nil)
	r.Notify()
	return nil
}
