package saga

import (
	"cmp"
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"
	"time"
)

// call asks a definition for one run of a Do or Undo.
type call struct {
	step     int
	dir      Direction
	state    json.RawMessage
	cached   any             // the *State that state is the JSON form of, or nil; the call may change it
	event    json.RawMessage // what an Await waited for
	timedOut bool            // or that it waited in vain
}

// answer is the state after a run, to be stored.
type answer struct {
	state  json.RawMessage
	cached any // its *State, or nil
}

// function is what a call runs; nil where there is nothing to run.
func (d *Definition[State]) function(c call) func(context.Context, *State) error {
	s := d.steps[c.step]
	switch {
	case c.dir == Backward:
		return s.Undo
	case s.special == nil:
		return s.Do
	case c.timedOut && s.OnTimeout != nil:
		return s.OnTimeout
	case c.timedOut:
		return func(context.Context, *State) error { return Permanent(ErrTimeout) }
	default:
		return func(ctx context.Context, st *State) error { return s.special.receive(ctx, st, c.event) }
	}
}

// attempt runs one direction of a step on a state of its own and returns the state to store.
func (d *Definition[State]) attempt(ctx context.Context, c call) (answer, error) {
	fn := d.function(c)
	if fn == nil {
		return answer{c.state, c.cached}, nil
	}
	s, ok := c.cached.(*State)
	if !ok || s == nil {
		var err error
		if s, err = d.decode(c.state); err != nil {
			return answer{}, err
		}
	}
	if err := guarded(func() error { return fn(ctx, s) }); err != nil {
		return answer{}, err
	}
	data, err := d.encode(s, c.step)
	if err != nil {
		return answer{}, err
	}
	if !d.plain {
		s = nil
	}
	return answer{data, s}, nil
}

// keep is a first state for the first step, or nil where that has to decode its own: state is the definition's now, but not what
// its slices hold.
func (d *Definition[State]) keep(state *State) any {
	if !d.plain || shares(reflect.ValueOf(state).Elem()) {
		return nil
	}
	return state
}

// shares reports whether a value that survives JSON has a slice in it.
func shares(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice:
		return !v.IsNil()
	case reflect.Struct:
		for i := range v.NumField() { //nolint:modernize // v.Fields would allocate
			if shares(v.Field(i)) {
				return true
			}
		}
	}
	return false
}

func (d *Definition[State]) decode(state json.RawMessage) (*State, error) {
	s := new(State)
	if err := json.Unmarshal(state, s); err != nil {
		return nil, &corruptError{fmt.Errorf("saga %q: the stored state cannot be decoded: %w", d.ref.Name, err)}
	}
	return s, nil
}

func (d *Definition[State]) encode(s *State, step int) (json.RawMessage, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("saga %q: the state after step %q cannot be encoded: %w", d.ref.Name, d.steps[step].Name, err)
	}
	return data, nil
}

// with decodes a state and runs fn on it.
func (d *Definition[State]) with(state json.RawMessage, fn func(s *State) error) error {
	s, err := d.decode(state)
	if err != nil {
		return err
	}
	return guarded(func() error { return fn(s) })
}

// pure is with for a function without effects: there is no use in calling it again, so any error parks the instance.
func (d *Definition[State]) pure(state json.RawMessage, fn func(s *State) error) error {
	err := d.with(state, fn)
	if err != nil && !isCorrupt(err) {
		err = &corruptError{err}
	}
	return err
}

func (d *Definition[State]) omits(step int, state json.RawMessage) (omitted bool, err error) {
	err = d.pure(state, func(s *State) error { omitted = !d.steps[step].When(*s); return nil })
	return omitted, err
}

func (d *Definition[State]) wakeAt(step int, state json.RawMessage) (at time.Time, err error) {
	err = d.pure(state, func(s *State) error { at = d.steps[step].special.until(*s); return nil })
	return at, err
}

func (d *Definition[State]) branchDo(ctx context.Context, step, branch int, state json.RawMessage) (result json.RawMessage, err error) {
	err = d.with(state, func(s *State) (err error) {
		result, err = d.steps[step].special.branches[branch].do(ctx, *s)
		return err
	})
	return result, err
}

func (d *Definition[State]) branchUndo(ctx context.Context, step, branch int, state, result json.RawMessage) error {
	return d.with(state, func(s *State) error { return d.steps[step].special.branches[branch].undo(ctx, *s, result) })
}

// merge is the state with the results of a group's branches in it.
func (d *Definition[State]) merge(step int, at Progress) (state json.RawMessage, err error) {
	err = d.pure(at.State, func(s *State) error {
		for _, b := range d.steps[step].special.branches {
			m := at.Marks[markOf(at.Step, b.name)]
			if b.merge == nil || !m.Done {
				continue
			}
			if err := b.merge(s, m.Result); err != nil {
				return err
			}
		}
		state, err = d.encode(s, step)
		return err
	})
	return state, err
}

func (d *Definition[State]) childStart(step int, id string, state json.RawMessage) (child Instance, err error) {
	err = d.pure(state, func(s *State) (err error) {
		child, err = d.steps[step].special.child.start(id, *s)
		return err
	})
	return child, err
}

func (d *Definition[State]) childMerge(step int, state, child json.RawMessage) (merged json.RawMessage, err error) {
	if d.steps[step].special.child.merge == nil {
		return state, nil
	}
	err = d.pure(state, func(s *State) error {
		if err := d.steps[step].special.child.merge(s, child); err != nil {
			return err
		}
		merged, err = d.encode(s, step)
		return err
	})
	return merged, err
}

// guarded turns a panic of fn into an error: the runner outlives its steps, and the history shows the stack.
func guarded(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}

// survivesJSON reports whether every value of t comes back from its JSON form as it was, so that the next step may be
// given the value itself. It says no wherever it would take a closer look: options, methods of their own, pointers, maps.
func survivesJSON(t reflect.Type, depth int) bool {
	for _, codec := range codecs {
		if t.Implements(codec) || reflect.PointerTo(t).Implements(codec) {
			return false
		}
	}
	switch k := t.Kind(); {
	case depth == 0: // perhaps a type within itself
		return false
	case k >= reflect.Bool && k <= reflect.Float64 && k != reflect.Uintptr, k == reflect.String:
		return true
	case k == reflect.Slice:
		return survivesJSON(t.Elem(), depth-1)
	case k != reflect.Struct:
		return false
	}
	names := map[string]bool{}
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		folded := strings.ToLower(cmp.Or(name, f.Name))
		if !f.IsExported() || f.Anonymous || name == "-" || options != "" || names[folded] || !survivesJSON(f.Type, depth-1) {
			return false
		}
		names[folded] = true
	}
	return true
}

var codecs = []reflect.Type{
	reflect.TypeFor[json.Marshaler](), reflect.TypeFor[json.Unmarshaler](),
	reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](),
}
