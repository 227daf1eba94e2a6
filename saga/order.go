package saga

import (
	"maps"
	"time"
)

// An order is a repair that takes the definition, asked for where that is not known, as by an operator's command: the instance is made
// due with a mark that says what is to be done, and the next node that knows the definition does it before anything else.

// orderMark is the name of that mark; no step has it.
const orderMark = ""

// ordered is the stuck instance at, with an order.
func ordered(at Progress, what Outcome) Progress {
	at.Marks = marked(at.Marks, orderMark, Mark{Order: what})
	at.Status = activeIn(at.Direction)
	return at
}

// unordered is at without its order.
func unordered(at Progress) Progress {
	if _, ok := at.Marks[orderMark]; ok {
		at.Marks = maps.Clone(at.Marks)
		delete(at.Marks, orderMark)
	}
	return at
}

// carryOut does what an order says. The history has it already, as the deed of the person who gave it; what is wrong with it is added.
func (s *session) carryOut(h *hold, p *plan, what Outcome) bool {
	in := h.in
	in.Progress = unordered(in.Progress)
	in.Status = Stuck
	var next Progress
	var err error
	if what == GivenUp {
		next, err = s.r.abortStuck(in)
	} else {
		next, err = s.r.passStuck(in)
	}
	now := time.Now()
	e := Event{Step: in.Step, Direction: in.Direction, Outcome: Failed, Owner: s.r.owner, Started: now, Ended: now}
	if err != nil {
		next = in.Progress
		next.Error = errorText(err)
		e.Error = next.Error
	}
	h.cached = nil
	c := s.transition(h, p, next, 0, e)
	if err == nil {
		c.t.Event = nil
	}
	return s.conclude(h, c)
}
