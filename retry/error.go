package retry

import (
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/internal/failure"
)

// ErrExhausted is what errors.Is finds in every [*Error]: the retrier gave up.
var ErrExhausted = errors.New("retry: gave up")

// Error says that the retrier gave up on an error it would have repeated, or was kept from the next attempt. It answers
// errors.Is for [ErrExhausted], Err and Stop.
type Error struct {
	Name     string // of the Retrier
	Attempts int    // how often the operation ran
	Err      error  // what it returned last
	// Stop is what prevented a further attempt: the context's error, or context.DeadlineExceeded where the delay would have
	// passed the deadline, or [ErrBudget], or a rejection of a later attempt. nil when the attempts or the backoff were used up.
	Stop error
}

// Error gives the number of attempts and both errors.
func (e *Error) Error() string {
	if e.Stop != nil {
		return fmt.Sprintf("retry %q: stopped after attempt %d (%v): %v", e.Name, e.Attempts, e.Stop, e.Err)
	}
	return fmt.Sprintf("retry %q: gave up after attempt %d: %v", e.Name, e.Attempts, e.Err)
}

// Is reports whether target is [ErrExhausted].
func (e *Error) Is(target error) bool { return target == ErrExhausted }

// Unwrap returns Err and, if there is one, Stop.
func (e *Error) Unwrap() []error {
	if e.Stop == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Stop}
}

// Rejected reports whether no attempt ran at all, each having been rejected.
func (e *Error) Rejected() bool { return e.Attempts == 0 }

// Permanent forwards what the last error says.
func (e *Error) Permanent() bool { return failure.Permanent(e.Err) }

// RetryAfter forwards what the last error says.
func (e *Error) RetryAfter() time.Duration { return failure.RetryAfter(e.Err) }

// Permanent marks err as not worth repeating: retriers return it at once. The mark counts only on the outermost error, so
// code that wraps it decides anew. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

type permanent struct{ err error }

func (p *permanent) Error() string             { return p.err.Error() }
func (p *permanent) Unwrap() error             { return p.err }
func (p *permanent) Permanent() bool           { return true }
func (p *permanent) RetryAfter() time.Duration { return failure.RetryAfter(p.err) }
