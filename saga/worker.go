package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/internal/failure"
)

// work goes on with an instance until it ends, has to wait, is lost, or the session drains.
func (s *session) work(h *hold) {
	defer s.drop(h)
	for s.step(h) {
	}
}

// step makes one attempt at what the instance stands at and records it. It returns false when the hold is over.
func (s *session) step(h *hold) bool {
	p := h.def.plan()
	if m, ok := h.in.Marks[orderMark]; ok {
		return s.carryOut(h, p, m.Order)
	}
	i := p.index(h.in.Step)
	if i >= 0 && h.in.Direction == Forward && p.steps[i].kind == groupStep {
		return s.group(h, p, i)
	}
	began := time.Now()
	if i >= 0 && p.steps[i].inTx {
		return s.inTx(h, p, i, began)
	}
	return s.conclude(h, s.prepare(h, p, i, began, s.execute(h, p, i, began)))
}

// prepare says what is to be recorded of an attempt.
func (s *session) prepare(h *hold, p *plan, i int, began time.Time, res result) *change {
	at := h.in.Progress
	next, wait := p.advance(i, at, res)
	e := Event{
		Step: at.Step, Direction: at.Direction, Attempt: at.Attempt + 1, Outcome: res.outcome(),
		Error: errorText(res.err), Owner: s.r.owner, Started: began, Ended: time.Now(),
	}
	if at.Direction == Backward && i >= 0 && p.steps[i].kind == groupStep {
		if b := p.steps[i].toUndo(at.Marks); b >= 0 {
			e.Step = markOf(at.Step, p.steps[i].branches[b].name)
		}
	}
	if res.park != nil || res.omitted {
		e.Attempt = 0
	}
	h.cached = nil
	if res.err == nil && res.park == nil {
		h.cached = res.cached
	}
	c := s.transition(h, p, next, wait, e)
	c.fresh = true
	if w := res.park; w != nil && (at.Awaits == w.awaits && at.Timer == w.timer) {
		c.t.Event = nil // it was said before, or there is nothing to say yet
	}
	return c
}

// transition fills in the hold's change: on to next, after a pause.
func (s *session) transition(h *hold, p *plan, next Progress, wait time.Duration, e Event) *change {
	forward := next.Status == Running && !p.pastPivot(p.index(next.Step))
	if limit := p.limits.Deadline; limit > 0 && wait > 0 && forward {
		wait = max(min(wait, limit-h.age()), time.Nanosecond)
	}
	stay := next.Status.Active() && wait == 0 && !s.draining()
	if !stay && !h.close() && forward {
		wait, stay = 0, true // it was cancelled, and turns back now
	}
	c := &h.change
	c.next, c.event, c.more, c.fresh = next, e, news(h.in, next), false
	c.t = Transition{ID: h.in.ID, Next: &c.next, Wait: wait, Event: &c.event, Seen: len(h.in.Received)}
	if stay {
		c.t.Hold = s.lease
	}
	return c
}

// news is what the parent of an instance has to be told of a change.
func news(in Instance, next Progress) []Transition {
	if in.Parent == "" || next.Status.Active() || next.Status == Stuck {
		return nil
	}
	name := in.ID[len(in.Parent)+1:]
	return []Transition{{ID: in.Parent, Deliver: &Delivery{Name: childEvent(name) + "/" + string(next.Status), Data: []byte("null")}}}
}

// conclude records a change and reports whether the hold goes on.
func (s *session) conclude(h *hold, c *change) bool {
	if !s.record(h, c) {
		s.lostHold(h)
		return false
	}
	return s.goOn(c)
}

func (s *session) lostHold(h *hold) {
	s.r.stats.lost.Add(1)
	s.r.log.Warn("saga lease lost", "saga", h.in.Name, "id", h.in.ID, "step", h.in.Step)
}

// goOn acts on a change that is in the store.
func (s *session) goOn(c *change) bool {
	if c.t.Wait > 0 && c.t.Wait < forever {
		s.sleepUntil(time.Now().Add(c.t.Wait))
	}
	if len(c.more) > 0 {
		s.r.Notify()
	}
	return c.t.Hold > 0
}

// execute makes one attempt under the instance's lease and the step's timeout.
func (s *session) execute(h *hold, p *plan, i int, began time.Time) result {
	in := &h.in
	if res, ok := s.hindrance(h, p, i); !ok {
		return res
	}
	step := &p.steps[i]
	if step.conditional && in.Direction == Forward && untouched(in.Progress) {
		if omitted, err := h.def.omits(i, in.State); omitted || err != nil {
			return result{omitted: omitted, err: err}
		}
	}
	c := call{step: i, dir: in.Direction, state: in.State, cached: h.cached}
	switch {
	case step.kind == groupStep: // backward
		return s.undoBranch(h, p, i, began)
	case step.kind == childStep && (in.Direction == Forward || !step.ownUndo):
		return s.child(h, step, i)
	case step.kind == sleepStep && in.Direction == Forward:
		return s.sleep(h, i)
	case step.kind == awaitStep && in.Direction == Forward:
		res, ok := s.await(h, step, &c)
		if !ok {
			return res
		}
	}
	ctx := s.newAttempt(h, p, i, in.Step, step.timeout, in.Attempt+1, began)
	ctx.tx = h.tx
	a, err := h.def.attempt(ctx, c)
	ctx.end()
	return result{state: a.state, cached: a.cached, err: err, interrupted: s.interrupted(err)}
}

func (s *session) interrupted(err error) bool {
	return err != nil && context.Cause(s.base) == errDrained
}

// untouched reports whether nothing has been tried yet at the step.
func untouched(at Progress) bool {
	return at.Attempt == 0 && at.Rejected == 0 && !at.Doubt && at.Awaits == "" && at.Timer == 0
}

// hindrance is the result of an attempt that must not be made.
func (s *session) hindrance(h *hold, p *plan, i int) (res result, ok bool) {
	at := h.in.Progress
	if i < 0 {
		return result{err: &corruptError{errUnknownStep(at.Step)}}, false
	}
	if at.Direction == Forward && !p.pastPivot(i) {
		switch limit := p.limits.Deadline; {
		case h.wasAsked():
			h.heed()
			return result{err: ErrCancelled, unstarted: true}, false
		case limit > 0 && !time.Now().Before(h.end(limit)):
			return result{err: deadlineError(limit, at.Error), unstarted: true}, false
		}
	} else if h.wasAsked() {
		h.heed()
	}
	if at.Direction == Forward && p.steps[i].kind == groupStep { // its branches count for themselves
		return res, true
	}
	if p.exhausted(i, at) {
		return result{err: errCutShort(at.Attempt), unstarted: true}, false
	}
	return res, true
}

func deadlineError(limit time.Duration, last string) error {
	if last == "" {
		return fmt.Errorf("%w (%v)", ErrDeadline, limit)
	}
	return fmt.Errorf("%w (%v); before that: %s", ErrDeadline, limit, last)
}

// newAttempt is the context of an attempt at a step or branch.
func (s *session) newAttempt(h *hold, p *plan, i int, name string, timeout time.Duration, number int, now time.Time) *attemptCtx {
	in := &h.in
	c := &attemptCtx{h: h, attempt: Attempt{
		Definition: in.Name, Version: in.Version, ID: in.ID, Step: name, Direction: in.Direction, Number: number,
	}}
	if in.Direction == Backward {
		c.attempt.Cause = in.Cause
	}
	if timeout > 0 {
		c.deadline = now.Add(timeout)
	}
	if limit := p.limits.Deadline; limit > 0 && in.Direction == Forward && !p.pastPivot(i) {
		if end := h.end(limit); c.deadline.IsZero() || end.Before(c.deadline) {
			c.deadline = end
		}
	}
	s.r.stats.attempts.Add(1)
	return c
}

// await finds the event for c, or has the instance wait.
func (s *session) await(h *hold, step *planned, c *call) (res result, ok bool) {
	in, age := &h.in, h.age()
	if data, came := in.Received[step.event]; came {
		c.event = data
		return res, true
	}
	timer := in.Timer
	if in.Awaits != step.event {
		timer = 0
		if step.wait > 0 {
			timer = age + step.wait
		}
	}
	switch {
	case timer == 0:
		return result{park: &parking{wait: forever, awaits: step.event}}, false
	case age < timer:
		return result{park: &parking{wait: timer - age, timer: timer, awaits: step.event}}, false
	}
	c.timedOut = true
	return res, true
}

// sleep has the instance wait for a time of the store's clock.
func (s *session) sleep(h *hold, i int) result {
	in := &h.in
	until, err := h.def.wakeAt(i, in.State)
	if err != nil {
		return result{err: err}
	}
	if in.Created.IsZero() { // of its own making: the store's time shows when it is claimed
		return result{park: &parking{wait: time.Nanosecond}}
	}
	age := h.age()
	timer := until.Sub(in.Created)
	if timer <= age {
		return result{state: in.State, cached: h.cached}
	}
	return result{park: &parking{wait: timer - age, timer: timer}}
}

func (res result) outcome() Outcome {
	switch {
	case res.park != nil:
		return Waiting
	case res.omitted:
		return Omitted
	case res.err == nil:
		return Done
	case res.interrupted:
		return Interrupted
	case res.err == ErrCancelled:
		return TurnedBack
	case failure.Rejected(res.err):
		return Rejected
	default:
		return Failed
	}
}

// record brings a change into the store as long as the lease lasts, and tries no longer than one lease: a change that the
// store cannot take must not hold up the drain. It returns false when the instance is lost: then nothing was written, or
// an answer got lost and whoever claims the instance next finds it written.
func (s *session) record(h *hold, c *change) bool {
	end := c.event.Ended.Add(s.lease)
	for pause := pollMin; !h.isLost(); pause = min(2*pause, time.Second) {
		v := s.submit(c)
		if v.err == nil {
			if v.recorded {
				h.note(c)
				s.r.recorded(h.in, c.t.Event, h)
			}
			return v.recorded
		}
		if !time.Now().Before(end) {
			break
		}
		h.rest(pause)
	}
	h.lose()
	return false
}
