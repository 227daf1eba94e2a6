package saga

import (
	"context"
	"time"

	"github.com/backstay-go/backstay/internal/failure"
)

// work goes on with an instance until it ends, has to wait, is lost, or the session drains.
func (s *session) work(h *hold) {
	defer s.drop(h)
	for {
		c := s.attempt(h)
		if !s.record(h, c) {
			s.r.stats.lost.Add(1)
			s.r.log.Warn("saga lease lost", "saga", h.in.Name, "id", h.in.ID, "step", h.in.Step)
			return
		}
		if c.t.Wait > 0 {
			s.sleepUntil(time.Now().Add(c.t.Wait))
		}
		if c.t.Hold == 0 {
			return
		}
	}
}

// attempt runs the step the instance stands at and says what is to be recorded.
func (s *session) attempt(h *hold) *change {
	p, at := h.def.plan(), h.in.Progress
	i := p.index(at.Step)
	began := time.Now()
	res := s.execute(h, p, i)
	next, wait := p.advance(i, at, res)
	e := &Event{
		Step: at.Step, Direction: at.Direction, Attempt: at.Attempt + 1, Outcome: res.outcome(),
		Error: errorText(res.err), Owner: s.r.owner, Started: began, Ended: time.Now(),
	}
	t := Transition{ID: h.in.ID, Next: &next, Wait: wait, Event: e}
	if next.Status.Active() && wait == 0 && !s.draining() {
		t.Hold = s.lease
	}
	return &change{h: h, t: t, reply: make(chan verdict, 1)}
}

// execute makes one attempt under the instance's lease and the step's timeout.
func (s *session) execute(h *hold, p plan, i int) result {
	in := &h.in
	if i < 0 {
		return result{err: &corruptError{errUnknownStep(in.Step)}}
	}
	if p.exhausted(i, in.Progress) {
		return result{err: errCutShort(in.Progress), unstarted: true}
	}
	ctx := context.WithValue(h.ctx, attemptKey{}, Attempt{
		Definition: in.Name, Version: in.Version, ID: in.ID,
		Step: in.Step, Direction: in.Direction, Number: in.Attempt + 1,
	})
	if d := p.steps[i].timeout; d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	s.r.stats.attempts.Add(1)
	state, err := h.def.attempt(ctx, i, in.Direction, in.State)
	return result{state: state, err: err, interrupted: err != nil && context.Cause(h.ctx) == errDrained}
}

func (res result) outcome() Outcome {
	switch {
	case res.err == nil:
		return Done
	case res.interrupted:
		return Interrupted
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
	for pause, end := pollMin, time.Now().Add(s.lease); !h.isLost() && time.Now().Before(end); pause = min(2*pause, time.Second) {
		s.commits <- c
		v := <-c.reply
		if v.err == nil {
			if v.recorded {
				h.in.Progress = *c.t.Next
				s.r.recorded(h.in, *c.t.Event)
			}
			return v.recorded
		}
		t := time.NewTimer(pause)
		select {
		case <-h.lost:
		case <-t.C:
		}
		t.Stop()
	}
	h.lose()
	return false
}
