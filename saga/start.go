package saga

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Start creates an instance of d and returns as soon as it is in the store; from then on it is not lost. It is idempotent
// by id: if an instance of the same definition, of any version, has that id, Start returns nil and the first state stands.
// ErrExists means that another definition has it. After any other error it is unknown whether the instance exists: call
// again. A runner that is in Run and has a free slot begins at once; otherwise any runner of the store does. The end of
// ctx does not end the instance.
func Start[State any](ctx context.Context, r *Runner, d *Definition[State], id string, state State) error {
	in, err := d.newInstance(id, &state)
	if err != nil {
		return err
	}
	if err := r.knows(in); err != nil {
		return err
	}
	return r.start(ctx, in, d.keep(&state))
}

func (r *Runner) knows(in Instance) error {
	if _, ok := r.defs[in.Ref]; !ok {
		return fmt.Errorf("saga %q: version %d is not registered with runner %q", in.Name, in.Version, r.Config().Name)
	}
	return nil
}

func (r *Runner) start(ctx context.Context, in Instance, cached any) error {
	s, h, err := r.create(ctx, in, cached)
	if h != nil {
		go s.work(h)
	}
	return err
}

// create stores an instance, and holds it if this runner has a free slot; cached is the decoded form of its state, or nil.
func (r *Runner) create(ctx context.Context, in Instance, cached any) (*session, *hold, error) {
	s := r.current()
	mine := s != nil && s.takeOne(ctx, in.Ref)
	var lease time.Duration
	if mine {
		in.Owner, lease = r.owner, s.lease
	}
	began := time.Now()
	created, err := r.store.Create(ctx, in, lease)
	if mine && (err != nil || !created) {
		s.free(in.Ref)
	}
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("saga %q: start of instance %q: %w", in.Name, in.ID, err)
	case !created:
		return nil, nil, r.sameDefinition(ctx, in)
	}
	r.stats.started.Add(1)
	if !mine {
		r.Notify()
		return nil, nil, nil
	}
	in.Token = 1
	h := s.newHold(in, began)
	h.cached = cached
	return s, h, nil
}

// Execute is Start and Wait in one, for callers that want the result: where this runner is in Run and has a free slot, the
// steps run on the caller's goroutine, one after the other. When ctx ends the instance goes on without the caller, and
// Execute returns ctx's cause; an attempt that runs on the caller's goroutine is waited for. Errors are those of both.
func Execute[State any](ctx context.Context, r *Runner, d *Definition[State], id string, state State) (Result[State], error) {
	in, err := d.newInstance(id, &state)
	if err == nil {
		err = r.knows(in)
	}
	if err != nil {
		return Result[State]{}, err
	}
	s, h, err := r.create(ctx, in, d.keep(&state))
	if err != nil {
		return Result[State]{}, err
	}
	if h == nil {
		return Wait(ctx, r, d, id)
	}
	if !s.workFor(ctx, h) {
		return Result[State]{}, fmt.Errorf("saga %q: wait for instance %q: %w", in.Name, id, context.Cause(ctx))
	}
	if !h.whole() || h.in.Status.Active() { // it was lost, or waits: others may bring it to its end
		return Wait(ctx, r, d, id)
	}
	if last, ok := h.cached.(*State); ok && last != nil && h.in.Status == Completed {
		return Result[State]{Status: Completed, State: *last, History: h.history}, nil
	}
	return resultOf(d, h.in, h.history)
}

// workFor works until the hold is over or ctx is: then it goes on without the caller, and workFor returns false.
func (s *session) workFor(ctx context.Context, h *hold) bool {
	over := true
	defer func() {
		if over {
			s.drop(h)
		}
	}()
	for s.step(h) {
		if ctx.Err() != nil {
			over = false
			go s.work(h)
			break
		}
	}
	return over
}

// sameDefinition makes a repeated start succeed only for the instance it means.
func (r *Runner) sameDefinition(ctx context.Context, in Instance) error {
	was, _, err := r.store.Load(ctx, in.ID)
	if err != nil {
		return fmt.Errorf("saga %q: start of instance %q: %w", in.Name, in.ID, err)
	}
	if was.Name != in.Name {
		return fmt.Errorf("saga %q: start of instance %q: %w: %q", in.Name, in.ID, ErrExists, was.Name)
	}
	return nil
}

// Result is how an instance ended, or got stuck.
type Result[State any] struct {
	Status Status
	// State is the state after the last step that was recorded.
	State State
	// History tells every attempt and repair, oldest first. Where this runner did it all from the start, the times are as it
	// saw them; Inspect has the store's.
	History []Event
}

// Wait blocks until the instance of d ends or gets stuck, on whatever node, or ctx is done. The error is nil only if it
// completed: otherwise it is an *Error, which is ErrCompensated, ErrStuck or ErrAborted, and the Result is filled in all
// the same; or ErrNotFound, ErrExists for an instance of another definition, the store's error, or ctx's cause. What this runner did is
// noticed at once, what others did within Config.PollMax.
func Wait[State any](ctx context.Context, r *Runner, d *Definition[State], id string) (Result[State], error) {
	var res Result[State]
	in, history, err := r.await(ctx, id)
	if err != nil {
		return res, fmt.Errorf("saga %q: wait for instance %q: %w", d.ref.Name, id, err)
	}
	if in.Name != d.ref.Name {
		return res, fmt.Errorf("saga %q: wait for instance %q: %w: %q", d.ref.Name, id, ErrExists, in.Name)
	}
	return resultOf(d, in, history)
}

func resultOf[State any](d *Definition[State], in Instance, history []Event) (Result[State], error) {
	res := Result[State]{Status: in.Status, History: history}
	ended := errorOf(in)
	if err := json.Unmarshal(in.State, &res.State); err != nil && ended == nil {
		return res, fmt.Errorf("saga %q: state of instance %q: %w", d.ref.Name, in.ID, err)
	}
	return res, ended
}

// waiter is the signal that an instance has ended, for everybody here who waits for it.
type waiter struct {
	ended chan struct{}
	h     *hold // that brought it to its end, if it knows the whole history; set before ended is closed
	users int
}

func (r *Runner) await(ctx context.Context, id string) (Instance, []Event, error) {
	for pause := pollMin; ; pause = min(2*pause, r.Config().PollMax) {
		w := r.watch(id)
		var in Instance
		var history []Event
		var err error
		if r.works(id) { // its end will be told
			pause = r.Config().PollMax
		} else if in, history, err = r.store.Load(ctx, id); err != nil || !in.Status.Active() {
			r.unwatch(id, w)
			return in, history, err
		}
		t := time.NewTimer(pause)
		select {
		case <-w.ended:
		case <-t.C:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		t.Stop()
		r.unwatch(id, w)
		switch {
		case err != nil:
			return in, history, err
		case w.h != nil && w.isEnded():
			return w.h.in, w.h.history, nil
		}
	}
}

func (w *waiter) isEnded() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// works reports whether this runner works on an instance.
func (r *Runner) works(id string) bool {
	s := r.current()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.here[id] != nil
}

func (r *Runner) watch(id string) *waiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.waiters[id]
	if w == nil {
		w = &waiter{ended: make(chan struct{})}
		r.waiters[id] = w
	}
	w.users++
	return w
}

func (r *Runner) unwatch(id string, w *waiter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.users--; w.users == 0 && r.waiters[id] == w {
		delete(r.waiters, id)
	}
}

func (r *Runner) signal(id string, h *hold) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.waiters[id]; w != nil {
		if h != nil && h.whole() {
			w.h = h
		}
		close(w.ended)
		delete(r.waiters, id)
	}
}
