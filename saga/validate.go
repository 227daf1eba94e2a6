package saga

import (
	"errors"
	"fmt"
	"strings"
)

// faults collects what is wrong with a definition.
type faults struct {
	saga string
	list []error
}

func (f *faults) require(ok bool, format string, args ...any) {
	if !ok {
		f.list = append(f.list, fmt.Errorf("saga %q: %s", f.saga, fmt.Sprintf(format, args...)))
	}
}

func (f *faults) schedule(step, field string, r Retry) {
	f.require(r.Initial >= 0, "step %q: %s.Initial is %v: it must not be negative", step, field, r.Initial)
	f.require(r.Max == 0 || r.Max >= r.Initial, "step %q: %s.Max is %v: it must not be below Initial", step, field, r.Max)
}

func (d *Definition[State]) validate() error {
	f := &faults{saga: d.ref.Name}
	f.require(d.ref.Name != "", "the name is empty")
	f.require(d.ref.Version >= 1, "version is %d: it must be at least 1", d.ref.Version)
	f.require(len(d.steps) > 0, "it has no steps")
	seen, events := map[string]bool{}, map[string]bool{}
	for i, s := range d.steps {
		f.require(s.Name != "", "step %d has no name", i)
		f.require(!strings.Contains(s.Name, "/"), "step %q: the name contains a slash", s.Name)
		f.require(!seen[s.Name], "step %d: the name %q is used before", i, s.Name)
		seen[s.Name] = true
		f.require(!s.Pivot || i == d.plans.pivot, "step %q: Pivot is set, but step %d is the pivot already", s.Name, d.plans.pivot)
		f.require(s.Undo == nil || !d.plans.pastPivot(i), "step %q: Undo is set after the pivot: it would never run", s.Name)
		f.schedule(s.Name, "Retry", s.Retry)
		f.schedule(s.Name, "UndoRetry", s.UndoRetry)
		s.validate(f, d.plans.pastPivot(i))
		if s.special != nil && s.special.kind == awaitStep {
			f.require(!events[s.special.event], "step %q: the event %q is awaited before", s.Name, s.special.event)
			events[s.special.event] = true
		}
	}
	return errors.Join(f.list...)
}

// validate checks what belongs to the kind of step.
func (s Step[State]) validate(f *faults, pastPivot bool) {
	sp := s.special
	if sp == nil {
		f.require(s.Do != nil, "step %q: Do is nil", s.Name)
		f.require(s.OnTimeout == nil, "step %q: OnTimeout is set, but it awaits no event", s.Name)
		return
	}
	f.require(s.Do == nil, "step %q: Do is set, but the step has one already", s.Name)
	f.require(s.OnTimeout == nil || sp.kind == awaitStep, "step %q: OnTimeout is set, but it awaits no event", s.Name)
	f.require(!s.InTx || sp.kind == awaitStep, "step %q: InTx is set: only steps with a Do and Await can have it", s.Name)
	switch sp.kind {
	case awaitStep:
		f.require(sp.receive != nil, "step %q: Await has no function", s.Name)
		f.require(sp.event != "" && !strings.Contains(sp.event, "/"), "step %q: the event %q is empty or contains a slash", s.Name, sp.event)
		f.require(sp.timeout >= 0, "step %q: the timeout is %v: it must not be negative", s.Name, sp.timeout)
		f.require(s.OnTimeout == nil || sp.timeout > 0, "step %q: OnTimeout is set, but there is no timeout", s.Name)
	case sleepStep:
		f.require(sp.until != nil, "step %q: SleepUntil has no function", s.Name)
		f.require(s.Undo == nil, "step %q: Undo is set, but a sleep has no effect", s.Name)
	case groupStep:
		f.require(s.Undo == nil, "step %q: Undo is set: each branch has its own", s.Name)
		validateGroup(f, s.Name, sp.branches, pastPivot)
	case childStep:
		f.require(sp.child.start != nil, "step %q: Child has no function that makes its state", s.Name)
		if f.require(sp.child.def != nil, "step %q: the definition of the child is nil", s.Name); sp.child.def != nil {
			f.require(s.Undo != nil || pastPivot || s.Pivot || sp.child.def.plan().pivot < 0,
				"step %q: the child has a pivot and cannot be undone: give the step an Undo, or put it after the pivot", s.Name)
		}
	}
}

func validateGroup[State any](f *faults, group string, branches []branch[State], pastPivot bool) {
	f.require(len(branches) > 0, "step %q: the group is empty", group)
	seen := map[string]bool{}
	for i, b := range branches {
		name := group + "/" + b.name
		f.require(b.name != "" && !strings.Contains(b.name, "/"), "step %q: branch %d: the name %q is empty or contains a slash", group, i, b.name)
		f.require(!seen[b.name], "step %q: branch %d: the name %q is used before", group, i, b.name)
		seen[b.name] = true
		f.require(b.do != nil, "step %q: Do is nil", name)
		f.require(b.undo == nil || !pastPivot, "step %q: Undo is set after the pivot: it would never run", name)
		f.schedule(name, "Retry", b.retry)
		f.schedule(name, "UndoRetry", b.undoRetry)
	}
}
