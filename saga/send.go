package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Send brings an event to an instance, for the Await of that name: at once if the instance waits for it, and else it is kept
// until the instance comes there. An event of a name happens once in the life of an instance: of several sent, the first
// stands and the others return nil. It returns ErrNotFound, or ErrStatus if the instance has ended; after any other error call
// again. Any node may call it, whether or not it knows the definition.
func Send[E any](ctx context.Context, r *Runner, id, event string, payload E) error {
	fail := func(err error) error {
		return fmt.Errorf("saga %q: send %q to instance %q: %w", r.Config().Name, event, id, err)
	}
	if event == "" || strings.Contains(event, "/") {
		return fail(errors.New("the name of an event must not be empty or contain a slash"))
	}
	data, err := json.Marshal(payload)
	if err != nil {
		return fail(err)
	}
	recorded, err := r.store.Commit(ctx, []Transition{{ID: id, Deliver: &Delivery{Name: event, Data: data}}})
	if err != nil {
		return fail(err)
	}
	if !recorded[0] {
		in, _, err := r.store.Load(ctx, id)
		if err == nil {
			err = fmt.Errorf("%w (it is %s)", ErrStatus, in.Status)
		}
		return fail(err)
	}
	r.Notify()
	return nil
}

// Cancel turns an instance back that is not past its pivot; what it did is undone. The attempt under way is cut short through
// its context, with ErrCancelled as the cause; if it succeeds all the same and passes the pivot or completes the instance,
// the cancellation is void. On a node other than this one the attempt ends at its next heartbeat, and compensation begins when
// its lease is out. One that is compensating, or compensated, is left to it. It returns ErrStatus for one that is past its pivot, stuck, or ended
// otherwise, ErrNotFound, or the store's error; besides, the definition must be registered here.
func (r *Runner) Cancel(ctx context.Context, id string) error {
	fail := func(err error) error { return fmt.Errorf("saga %q: cancel instance %q: %w", r.Config().Name, id, err) }
	in, _, err := r.store.Load(ctx, id)
	if err != nil {
		return fail(err)
	}
	p, _, err := r.position(in)
	if err != nil {
		return fail(err)
	}
	if in.Status == Completed { // the parent may undo a child that is, but nobody else
		return fail(fmt.Errorf("%w (it is %s)", ErrStatus, in.Status))
	}
	if _, err := r.turnBack(ctx, id, p, ErrCancelled.Error()); err != nil {
		return fail(err)
	}
	return nil
}

// turnBack has an instance compensate, also if it is completed, and returns how it then stands.
func (r *Runner) turnBack(ctx context.Context, id string, p *plan, cause string) (Status, error) {
	for pause := pollMin; ; pause = min(2*pause, time.Second) {
		in, _, err := r.store.Load(ctx, id)
		if err != nil {
			return "", err
		}
		if in.Status == Running && in.Owner == r.owner && r.askHere(id, p, in) {
			return Running, nil
		}
		next, err := turnedBack(p, in, cause)
		if err != nil || next.Status == in.Status && next.Direction == in.Direction {
			return in.Status, err
		}
		now := time.Now()
		e := Event{Step: in.Step, Direction: in.Direction, Outcome: TurnedBack, Error: cause, Owner: r.owner, Started: now, Ended: now}
		recorded, err := r.store.Commit(ctx, append([]Transition{{
			ID: id, Token: in.Token, Next: &next, AfterLease: in.Owner != "", Event: &e,
		}}, news(in, next)...))
		if err != nil {
			return "", err
		}
		if recorded[0] {
			in.Progress = next
			r.recorded(in, &e, nil)
			r.Notify()
			return next.Status, nil
		}
		t := time.NewTimer(pause) // it has moved on meanwhile
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return "", context.Cause(ctx)
		}
	}
}

// turnedBack is where an instance stands that somebody wants undone.
func turnedBack(p *plan, in Instance, cause string) (Progress, error) {
	at, i := in.Progress, p.index(in.Step)
	switch {
	case at.Status == Compensating, at.Status == Compensated:
		return at, nil
	case at.Status == Completed && p.pivot < 0:
		return p.turnBackWhole(at, cause), nil
	case at.Status != Running || p.pastPivot(i):
		return at, fmt.Errorf("%w (it is %s at step %q)", ErrStatus, at.Status, at.Step)
	case i < 0:
		return at, errUnknownStep(in.Step)
	}
	at.Doubt = at.Doubt || in.Owner != ""
	at.Error = cause
	return p.turnBack(i, at), nil
}

// askHere cancels an instance that this runner works on.
func (r *Runner) askHere(id string, p *plan, in Instance) bool {
	if p.pastPivot(p.index(in.Step)) {
		return false
	}
	s := r.current()
	if s == nil {
		return false
	}
	s.mu.Lock()
	h := s.here[id]
	s.mu.Unlock()
	return h != nil && h.ask()
}

// Inspect returns an instance as the store has it and its whole history, oldest first, or ErrNotFound. It works for
// instances of any definition.
func (r *Runner) Inspect(ctx context.Context, id string) (Instance, []Event, error) {
	return r.store.Load(ctx, id)
}

// List returns the instances that match f, ordered by ID, of whatever definition.
func (r *Runner) List(ctx context.Context, f Filter) ([]Instance, error) { return r.store.List(ctx, f) }
