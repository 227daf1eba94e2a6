package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Child is a step that carries out another saga and waits for its end, without a goroutine or a lease. The child's ID is
// that of the parent, a slash and the step's name; start makes its State, and merge, which may be nil, takes over its final
// State. Neither may have effects. A child that is compensated or aborted fails the step for good. While the child is stuck
// the parent waits. To undo the step the child is turned back as a whole, also where it had completed; the step's Undo, if
// set, is done instead. Runners that know the parent know the child. When, Undo, UndoRetry and Pivot of the Step may be set.
func Child[State, C any](name string, d *Definition[C], start func(s State) C, merge func(s *State, c C)) Step[State] {
	c := &childOf[State]{}
	if d != nil {
		c.def = d
	}
	if start != nil {
		c.start = func(id string, s State) (Instance, error) { return d.NewInstance(id, start(s)) }
	}
	if merge != nil {
		c.merge = func(s *State, data json.RawMessage) error {
			var child C
			if err := json.Unmarshal(data, &child); err != nil {
				return &corruptError{fmt.Errorf("the state of the child cannot be decoded: %w", err)}
			}
			merge(s, child)
			return nil
		}
	}
	return Step[State]{Name: name, special: &special[State]{kind: childStep, child: c}}
}

// childOf is the child of a step, for any State of its own.
type childOf[State any] struct {
	def   definition
	start func(id string, s State) (Instance, error)
	merge func(s *State, data json.RawMessage) error
}

// childEvent is what the end of a child is called in its parent's inbox.
func childEvent(step string) string { return "child/" + step }

// childID is the ID of the child that a step of parent has.
func childID(parent, step string) string { return parent + "/" + step }

// storeTrouble is a failed call of the store within an attempt: it was no attempt.
type storeTrouble struct{ error }

func (storeTrouble) Rejected() bool { return true }

// child starts the child of a step or looks what became of it, forward; backward it turns it back.
func (s *session) child(h *hold, step *planned, i int) result {
	in := &h.in
	ctx, cancel := context.WithTimeout(s.detached, s.lease)
	defer cancel()
	id := childID(in.ID, step.name)
	child, _, err := s.r.store.Load(ctx, id)
	if errors.Is(err, ErrNotFound) {
		if in.Direction == Backward {
			return result{state: in.State}
		}
		child, err = s.createChild(ctx, h, i, id)
	}
	switch {
	case isCorrupt(err):
		return result{err: err}
	case err != nil:
		return result{err: storeTrouble{err}}
	case child.Parent != in.ID:
		return result{err: &corruptError{fmt.Errorf("%w, not a child: %q", ErrExists, id)}}
	case in.Direction == Backward:
		return s.undoChild(ctx, h, step, child)
	}
	switch child.Status {
	case Completed:
		state, err := h.def.childMerge(i, in.State, child.State)
		return result{state: state, err: err}
	case Compensated, Aborted:
		return result{err: Permanent(errorOf(child))}
	default:
		return result{park: &parking{wait: forever, awaits: step.event}}
	}
}

func (s *session) createChild(ctx context.Context, h *hold, i int, id string) (Instance, error) {
	child, err := h.def.childStart(i, id, h.in.State)
	if err != nil {
		return child, err
	}
	child.Parent = h.in.ID
	created, err := s.r.store.Create(ctx, child, 0)
	if err == nil && !created {
		child, _, err = s.r.store.Load(ctx, id)
	}
	s.r.Notify()
	return child, err
}

// undoChild turns the child of a step back as a whole, and waits until it is undone.
func (s *session) undoChild(ctx context.Context, h *hold, step *planned, child Instance) result {
	switch child.Status {
	case Compensated, Aborted:
		return result{state: h.in.State}
	case Running, Completed:
		status, err := s.r.turnBack(ctx, child.ID, step.child.plan(), fmt.Sprintf("the parent turned back: %s", h.in.Cause))
		switch {
		case errors.Is(err, ErrStatus):
			return result{err: Permanent(fmt.Errorf("the child %q cannot be turned back: %w", child.ID, err))}
		case err != nil:
			return result{err: storeTrouble{err}}
		case status == Compensated:
			return result{state: h.in.State}
		}
	}
	return result{park: &parking{wait: forever, awaits: step.event}}
}
