package saga

import (
	"errors"
	"fmt"
	"strings"
)

// The errors a caller decides on.
var (
	// ErrNotFound says that the store has no instance of that ID.
	ErrNotFound = errors.New("saga: no such instance")
	// ErrExists says that the ID belongs to an instance of another definition.
	ErrExists = errors.New("saga: the id belongs to an instance of another definition")
	// ErrFenced says that somebody else has changed or taken the instance. It is the cause of the context of an attempt
	// whose lease was lost, and the error of a repair that came too late; load the instance and look again.
	ErrFenced = errors.New("saga: the instance was changed or taken by another owner")
	// ErrStatus says that the instance's status does not allow the repair.
	ErrStatus = errors.New("saga: the status of the instance does not allow this")
	// ErrCompensated says that the saga failed and everything it did is undone.
	ErrCompensated = errors.New("saga: compensated")
	// ErrStuck says that the saga waits for a person.
	ErrStuck = errors.New("saga: stuck")
	// ErrTimeout is why a step failed whose event did not come in time.
	ErrTimeout = errors.New("saga: the event did not come in time")
	// ErrDeadline is why an instance turned back that was not past its pivot by the end of Limits.Deadline.
	ErrDeadline = errors.New("saga: the deadline has passed")
	// ErrCancelled is why an instance turned back for which Cancel was called, and the cause of the context of the attempt
	// that this cut short.
	ErrCancelled = errors.New("saga: cancelled")
	// ErrAborted says that a person gave the saga up.
	ErrAborted = errors.New("saga: aborted")
)

// Error tells how an instance ended otherwise than completed. It is ErrCompensated, ErrStuck or ErrAborted by its
// Status. Causes are texts: they come out of the store, perhaps from another node and another week.
type Error struct {
	Definition string
	ID         string
	Status     Status
	// Step is the step that was touched last.
	Step string
	// Cause is the error that turned the saga back; empty when it got stuck going forward.
	Cause string
	// Last is the last error of Step; empty when it ended well.
	Last string
}

// Error names the instance, its end and its causes.
func (e *Error) Error() string {
	msg := fmt.Sprintf("saga %q: instance %q %s at step %q", e.Definition, e.ID, e.Status, e.Step)
	if e.Cause != "" {
		msg += ": " + e.Cause
	}
	if e.Last != "" && e.Last != e.Cause {
		msg += ": " + e.Last
	}
	return msg
}

// Is matches the sentinel of the status.
func (e *Error) Is(target error) bool {
	switch e.Status {
	case Compensated:
		return target == ErrCompensated
	case Stuck:
		return target == ErrStuck
	case Aborted:
		return target == ErrAborted
	default:
		return false
	}
}

// errorOf is the *Error of an instance that ended otherwise than completed, or nil.
func errorOf(in Instance) error {
	if in.Status == Completed || in.Status.Active() {
		return nil
	}
	return &Error{Definition: in.Name, ID: in.ID, Status: in.Status, Step: in.Step, Cause: in.Cause, Last: in.Error}
}

// Permanent marks err as final: the step was executed and refused, without effect, and will be refused again. No further
// attempt is made; unless an earlier attempt is in doubt, the step's own Undo is not run. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

type permanent struct{ error }

func (p *permanent) Permanent() bool { return true }
func (p *permanent) Unwrap() error   { return p.error }

// corruptError says that a stored instance does not fit its definition; no attempt can help.
type corruptError struct{ error }

func isCorrupt(err error) bool {
	_, ok := err.(*corruptError)
	return ok
}

// errSibling is the cause of the attempts at branches that are cut short since another branch failed for good.
var errSibling = errors.New("saga: another branch of the group has failed")

// errDrained is the cause of attempts that outlived the drain time.
var errDrained = errors.New("saga: the runner is shutting down")

// maxErrorText bounds what one error takes in the store.
const maxErrorText = 4 << 10

func errorText(err error) string {
	if err == nil {
		return ""
	}
	msg := err.Error()
	if len(msg) > maxErrorText {
		msg = msg[:maxErrorText]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(msg, "?"), "\x00", "?") // what every database takes
}
