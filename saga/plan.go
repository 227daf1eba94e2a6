package saga

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/backstay-go/backstay/internal/failure"
)

// plan is what the state machine needs to know of a definition. Its methods are the whole state machine: pure functions of
// where an instance stands and of what happened.
type plan struct {
	steps  []planned
	pivot  int // -1 without one
	limits Limits
}

type planned struct {
	name             string
	kind             kind
	undo             bool // there may be something to undo
	ownUndo          bool // of a child: by a function, not by turning it back
	conditional      bool
	inTx             bool
	late             bool // the end of the wait has a function of its own
	event            string
	wait             time.Duration
	branches         []planned
	child            definition
	retry, undoRetry Retry
	timeout          time.Duration
}

// result is what became of one attempt.
type result struct {
	state       []byte
	cached      any // the decoded form of state, or nil
	err         error
	interrupted bool     // the runner's shutdown ended it
	unstarted   bool     // it did not run, and will not
	omitted     bool     // the step is left out
	park        *parking // it has to wait
}

// parking is how long an instance waits, and for what.
type parking struct {
	wait, timer time.Duration
	awaits      string
}

// forever is the pause of an instance that waits without limit: it is looked at again all the same.
const forever = 365 * 24 * time.Hour

func (p *plan) index(step string) int {
	for i := range p.steps {
		if p.steps[i].name == step {
			return i
		}
	}
	return -1
}

func (p *plan) pastPivot(i int) bool { return p.pivot >= 0 && i > p.pivot }

// schedule is the one that governs step i in direction d.
func (p *plan) schedule(i int, at Progress) Retry {
	step := &p.steps[i]
	if step.kind == groupStep && at.Direction == Backward {
		if b := step.toUndo(at.Marks); b >= 0 {
			return step.branches[b].undoRetry
		}
	}
	if at.Direction == Backward {
		return step.undoRetry
	}
	return step.retry
}

func (r Retry) exhausted(attempts int) bool { return r.MaxAttempts > 0 && attempts >= r.MaxAttempts }

// exhausted reports whether at has used up the attempts of step i.
func (p *plan) exhausted(i int, at Progress) bool { return p.schedule(i, at).exhausted(at.Attempt) }

// advance says where an instance at step i goes after an attempt, and after what pause.
func (p *plan) advance(i int, at Progress, res result) (Progress, time.Duration) {
	err := res.err
	switch {
	case res.park != nil:
		at.Awaits, at.Timer = res.park.awaits, res.park.timer
		return at, res.park.wait
	case res.omitted:
		at.Marks = marked(at.Marks, at.Step, Mark{Omitted: true})
		return p.past(i, at), 0
	case err == nil:
		at.State = res.state
		return p.past(i, at), 0
	}
	at.Error = errorText(err)
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
		return at, p.schedule(i, at).pause(at.Attempt+at.Rejected, err)
	}
	at.Attempt++
	if failure.Permanent(err) {
		at.Awaits = "" // a child that has ended leaves nothing behind
		return p.giveUp(i, at), 0
	}
	at.Doubt = true
	if p.exhausted(i, at) {
		return p.giveUp(i, at), 0
	}
	return at, p.schedule(i, at).pause(at.Attempt+at.Rejected, err)
}

// past goes on from step i, which is done with in its direction.
func (p *plan) past(i int, at Progress) Progress {
	if at.Direction == Backward {
		if step := &p.steps[i]; step.kind == groupStep {
			if b := step.toUndo(at.Marks); b >= 0 {
				name := markOf(step.name, step.branches[b].name)
				m := at.Marks[name]
				m.Undone = true
				at.Marks = marked(at.Marks, name, m)
				return p.undoFrom(i, at)
			}
		}
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
func (p *plan) giveUp(i int, at Progress) Progress {
	if at.Direction == Backward || p.pastPivot(i) {
		at.Status = Stuck
		return at
	}
	return p.turnBack(i, at)
}

// turnBack starts compensation at step i, whose own effect counts only if it is in doubt.
func (p *plan) turnBack(i int, at Progress) Progress {
	at.Cause = at.Error
	at.Direction = Backward
	switch step := &p.steps[i]; {
	case step.kind == groupStep:
		at = p.foldLoss(i, at)
	case !at.Doubt && (step.kind != childStep || at.Awaits == ""):
		i--
	}
	return p.undoFrom(i, at)
}

// turnBackWhole undoes an instance that had completed.
func (p *plan) turnBackWhole(at Progress, cause string) Progress {
	at.Cause, at.Direction = cause, Backward
	return p.undoFrom(len(p.steps)-1, at)
}

// undoFrom moves to the last step up to i that has something to undo.
func (p *plan) undoFrom(i int, at Progress) Progress {
	at = fresh(at)
	for ; i >= 0; i-- {
		if p.undoable(i, at.Marks) {
			at.Status, at.Step = Compensating, p.steps[i].name
			return at
		}
	}
	at.Status = Compensated
	return at
}

func (p *plan) undoable(i int, marks map[string]Mark) bool {
	step := &p.steps[i]
	if step.kind == groupStep {
		return step.toUndo(marks) >= 0
	}
	return step.undo && !marks[step.name].Omitted
}

// fresh forgets what belongs to the step before.
func fresh(at Progress) Progress {
	at.Attempt, at.Rejected, at.Doubt, at.Error = 0, 0, false, ""
	at.Awaits, at.Timer = "", 0
	return unordered(at)
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
func errCutShort(attempt int) error {
	return fmt.Errorf("the node was lost during attempt %d, and no attempt is left", attempt)
}

// markOf is what a branch is called in Marks and in the history.
func markOf(group, branch string) string { return group + "/" + branch }

// marked is marks with one changed. A Progress shares its marks with those it was made from, which must not change.
func marked(marks map[string]Mark, name string, m Mark) map[string]Mark {
	marks = maps.Clone(marks)
	if marks == nil {
		marks = map[string]Mark{}
	}
	marks[name] = m
	return marks
}

// toUndo is the branch of a group that is undone next, or -1.
func (step *planned) toUndo(marks map[string]Mark) int {
	for b, branch := range slices.Backward(step.branches) {
		if m := marks[markOf(step.name, branch.name)]; branch.undo && (m.Done || m.Doubt) && !m.Undone {
			return b
		}
	}
	return -1
}

// pending lists the branches of a group that are neither done nor have failed.
func (step *planned) pending(marks map[string]Mark) (list []int) {
	for b, branch := range step.branches {
		if m := marks[markOf(step.name, branch.name)]; !m.Done && !m.Failed {
			list = append(list, b)
		}
	}
	return list
}

// foldLoss turns what the instance knows of lost nodes into what its pending branches know: all of them were under way.
func (p *plan) foldLoss(i int, at Progress) Progress {
	step := &p.steps[i]
	if at.Attempt == 0 && !at.Doubt {
		return at
	}
	for _, b := range step.pending(at.Marks) {
		branch := &step.branches[b]
		name := markOf(step.name, branch.name)
		m := at.Marks[name]
		m.Attempt += at.Attempt
		m.Doubt = m.Doubt || at.Doubt
		if branch.retry.exhausted(m.Attempt) {
			m.Failed, m.Error = true, errCutShort(m.Attempt).Error()
			at.Error = m.Error
		}
		at.Marks = marked(at.Marks, name, m)
	}
	at.Attempt, at.Doubt = 0, false
	return at
}

// branchResult notes what became of an attempt at a branch, and how long to wait before the next.
func (p *plan) branchResult(i, b int, at Progress, res result) (Progress, time.Duration) {
	branch := &p.steps[i].branches[b]
	name := markOf(p.steps[i].name, branch.name)
	m, err := at.Marks[name], res.err
	m.Error = errorText(err)
	counts := false
	switch {
	case err == nil:
		m.Done, m.Doubt, m.Result = true, false, res.state
	case isCorrupt(err):
		m.Failed = true
	case res.interrupted:
		m.Doubt = true
	case failure.Rejected(err):
		m.Rejected++
		counts = true
	default:
		m.Attempt++
		counts = true
		m.Doubt = m.Doubt || !failure.Permanent(err)
		m.Failed = failure.Permanent(err) || branch.retry.exhausted(m.Attempt)
	}
	if err != nil && (at.Error == "" || m.Failed) {
		at.Error = m.Error
	}
	at.Marks = marked(at.Marks, name, m)
	if !counts || m.Failed {
		return at, 0
	}
	return at, branch.retry.pause(m.Attempt+m.Rejected, err)
}

// groupFailed reports whether a branch has no attempt left.
func (p *plan) groupFailed(i int, at Progress) bool {
	step := &p.steps[i]
	return slices.ContainsFunc(step.branches, func(b planned) bool { return at.Marks[markOf(step.name, b.name)].Failed })
}

// again gives what an instance is stuck at a fresh round of attempts.
func (p *plan) again(i int, at Progress) Progress {
	at.Attempt, at.Rejected = 0, 0
	at.Status = activeIn(at.Direction)
	if i < 0 || p.steps[i].kind != groupStep || at.Direction == Backward {
		return at
	}
	for _, b := range p.steps[i].branches {
		name := markOf(at.Step, b.name)
		if m, ok := at.Marks[name]; ok && !m.Done {
			m.Attempt, m.Rejected, m.Failed = 0, 0, false
			at.Marks = marked(at.Marks, name, m)
		}
	}
	return at
}
