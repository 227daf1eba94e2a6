package saga

import (
	"errors"
	"time"
)

// branchEnd is what a branch's goroutine reports.
type branchEnd struct {
	b            int
	res          result
	began, ended time.Time
}

// group runs the pending branches of a parallel step at once, and records each as it returns. It returns false when the hold
// is over.
func (s *session) group(h *hold, p *plan, i int) bool {
	began, step := time.Now(), &p.steps[i]
	res, ok := s.hindrance(h, p, i)
	if ok && step.conditional && s.groupUntouched(h, step) {
		res.omitted, res.err = h.def.omits(i, h.in.State)
	}
	if res.err == nil && !res.omitted {
		h.in.Progress = p.foldLoss(i, h.in.Progress)
		if p.groupFailed(i, h.in.Progress) {
			res = result{err: errors.New(h.in.Error), unstarted: true}
		}
	}
	if res.err != nil || res.omitted {
		return s.conclude(h, s.prepare(h, p, i, began, res))
	}
	h.cached = nil
	pending := step.pending(h.in.Marks)
	ends, attempts := s.launch(h, p, i, pending)
	return s.collect(h, p, i, len(pending), ends, attempts)
}

func (s *session) groupUntouched(h *hold, step *planned) bool {
	for _, b := range step.branches {
		if _, marked := h.in.Marks[markOf(step.name, b.name)]; marked {
			return false
		}
	}
	return untouched(h.in.Progress)
}

// launch starts a goroutine for each of the branches.
func (s *session) launch(h *hold, p *plan, i int, pending []int) (chan branchEnd, []*attemptCtx) {
	step, state := &p.steps[i], h.in.State
	ends := make(chan branchEnd, len(pending))
	attempts := make([]*attemptCtx, len(pending))
	for n, b := range pending {
		branch := &step.branches[b]
		name := markOf(step.name, branch.name)
		ctx := s.newAttempt(h, p, i, name, branch.timeout, h.in.Marks[name].Attempt+1, time.Now())
		attempts[n] = ctx
		go func() {
			began := time.Now()
			data, err := h.def.branchDo(ctx, i, b, state)
			ctx.end()
			ends <- branchEnd{b, result{state: data, err: err, interrupted: s.interrupted(err)}, began, time.Now()}
		}()
	}
	return ends, attempts
}

// collect records the ends of n branches; with the last one it says where the instance goes.
func (s *session) collect(h *hold, p *plan, i, n int, ends chan branchEnd, attempts []*attemptCtx) bool {
	var wait time.Duration
	for ; n > 0; n-- {
		end := <-ends
		next, pause := p.branchResult(i, end.b, h.in.Progress, end.res)
		wait = max(wait, pause)
		name := markOf(p.steps[i].name, p.steps[i].branches[end.b].name)
		e := Event{
			Step: name, Direction: Forward, Attempt: h.in.Marks[name].Attempt + 1, Outcome: end.res.outcome(),
			Error: errorText(end.res.err), Owner: s.r.owner, Started: end.began, Ended: end.ended,
		}
		if next.Marks[name].Failed {
			for _, ctx := range attempts {
				ctx.interrupt(errSibling)
			}
		}
		var c *change
		if n == 1 {
			next, wait = s.settleGroup(h, p, i, next, wait)
			c = s.transition(h, p, next, wait, e)
		} else {
			c = s.transition(h, p, next, 0, e)
			c.t.Hold = s.lease // whatever the session does, the others are still under way
		}
		if !s.record(h, c) {
			for ; n > 1; n-- {
				<-ends
			}
			s.lostHold(h)
			return false
		}
		if n == 1 {
			return s.goOn(c)
		}
	}
	return false
}

// settleGroup says where an instance goes once no branch is under way.
func (s *session) settleGroup(h *hold, p *plan, i int, at Progress, wait time.Duration) (Progress, time.Duration) {
	switch {
	case p.groupFailed(i, at):
		return p.giveUp(i, at), 0
	case len(p.steps[i].pending(at.Marks)) > 0:
		return at, wait
	}
	state, err := h.def.merge(i, at)
	if err != nil {
		at.Status, at.Error = Stuck, errorText(err)
		return at, 0
	}
	at.State = state
	return p.past(i, at), 0
}

// undoBranch undoes the last branch of a group that has to be.
func (s *session) undoBranch(h *hold, p *plan, i int, began time.Time) result {
	in, step := &h.in, &p.steps[i]
	b := step.toUndo(in.Marks)
	if b < 0 {
		return result{state: in.State}
	}
	branch := &step.branches[b]
	name := markOf(step.name, branch.name)
	ctx := s.newAttempt(h, p, i, name, branch.timeout, in.Attempt+1, began)
	err := h.def.branchUndo(ctx, i, b, in.State, in.Marks[name].Result)
	ctx.end()
	return result{state: in.State, err: err, interrupted: s.interrupted(err)}
}
