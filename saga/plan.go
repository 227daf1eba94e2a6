package saga

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/backstay-go/backstay/internal/failure"
)

// plan is what the state machine needs to know of a definition.
type plan struct {
	steps []planned
	pivot int // -1 without one
}

type planned struct {
	name             string
	undo             bool
	retry, undoRetry Retry
	timeout          time.Duration
}

// result is what became of one attempt.
type result struct {
	state       []byte
	err         error
	interrupted bool // the runner's shutdown ended it
	unstarted   bool // it did not run: earlier ones used up the schedule
}

func (p plan) index(step string) int {
	return slices.IndexFunc(p.steps, func(s planned) bool { return s.name == step })
}

func (p plan) pastPivot(i int) bool { return p.pivot >= 0 && i > p.pivot }

// schedule is the one that governs step i in direction d.
func (p plan) schedule(i int, d Direction) Retry {
	if d == Backward {
		return p.steps[i].undoRetry
	}
	return p.steps[i].retry
}

// exhausted reports whether at has used up the attempts of step i.
func (p plan) exhausted(i int, at Progress) bool {
	limit := p.schedule(i, at.Direction).MaxAttempts
	return limit > 0 && at.Attempt >= limit
}

// advance is the whole state machine: where an instance at step i goes after an attempt, and after what pause.
func (p plan) advance(i int, at Progress, res result) (Progress, time.Duration) {
	err := res.err
	if err == nil {
		at.State = res.state
		return p.past(i, at), 0
	}
	at.Error = errorText(err)
	retry := p.schedule(i, at.Direction)
	switch {
	case isCorrupt(err):
		at.Status = Stuck
		return at, 0
	case res.interrupted:
		at.Doubt = true
		return at, 0
	case res.unstarted:
		return p.giveUp(i, at), 0
	case failure.Rejected(err):
		at.Rejected++
		return at, retry.pause(at.Attempt+at.Rejected, err)
	}
	at.Attempt++
	if failure.Permanent(err) {
		return p.giveUp(i, at), 0
	}
	at.Doubt = true
	if p.exhausted(i, at) {
		return p.giveUp(i, at), 0
	}
	return at, retry.pause(at.Attempt+at.Rejected, err)
}

// past goes on from step i, which is done with in its direction.
func (p plan) past(i int, at Progress) Progress {
	if at.Direction == Backward {
		return p.undoFrom(i-1, at)
	}
	at = fresh(at)
	if i+1 == len(p.steps) {
		at.Status = Completed
		return at
	}
	at.Step = p.steps[i+1].name
	return at
}

// giveUp turns back an instance that can be turned back, and parks one that cannot.
func (p plan) giveUp(i int, at Progress) Progress {
	if at.Direction == Backward || p.pastPivot(i) {
		at.Status = Stuck
		return at
	}
	return p.turnBack(i, at)
}

// turnBack starts compensation at step i, whose own effect counts only if it is in doubt.
func (p plan) turnBack(i int, at Progress) Progress {
	at.Cause = at.Error
	at.Direction = Backward
	if !at.Doubt {
		i--
	}
	return p.undoFrom(i, at)
}

// undoFrom moves to the last step up to i that has an Undo.
func (p plan) undoFrom(i int, at Progress) Progress {
	at = fresh(at)
	for ; i >= 0; i-- {
		if p.steps[i].undo {
			at.Status, at.Step = Compensating, p.steps[i].name
			return at
		}
	}
	at.Status = Compensated
	return at
}

// fresh forgets what belongs to the step before.
func fresh(at Progress) Progress {
	at.Attempt, at.Rejected, at.Doubt, at.Error = 0, 0, false, ""
	return at
}

// pause is how long to wait after the n-th failure in a row: at least what err asks for.
func (r Retry) pause(n int, err error) time.Duration {
	d := r.Initial
	for ; n > 1 && d < r.Max; n-- {
		d *= 2
	}
	d = min(d, r.Max)
	d -= rand.N(d/2 + 1)
	return max(d, failure.RetryAfter(err), time.Nanosecond)
}

// errCutShort is the error of a step whose attempts were used up by nodes that were lost.
func errCutShort(at Progress) error {
	return fmt.Errorf("the node was lost during attempt %d, and no attempt is left", at.Attempt)
}
