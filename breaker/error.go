package breaker

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ErrOpen is what errors.Is finds in every rejection: the breaker is open, or half-open with all its probes given out.
var ErrOpen = errors.New("breaker: open")

// Error is a rejection: the operation did not run. One value serves all rejections of an episode, so rejecting allocates
// nothing. It answers errors.Is for [ErrOpen] and is safe for concurrent use.
type Error struct {
	name   string
	state  State
	forced bool
	base   time.Time
	until  time.Duration // since base; 0 when half-open
	nearly atomic.Bool   // until is so near that the clock must be read; before, a rejection costs no look at it
}

// Error names the breaker and says how long it stays open.
func (e *Error) Error() string {
	switch {
	case e.forced:
		return fmt.Sprintf("breaker %q is forced open", e.name)
	case e.state == HalfOpen:
		return fmt.Sprintf("breaker %q is half-open and all its probes are under way", e.name)
	default:
		return fmt.Sprintf("breaker %q is open: try again in %v", e.name, e.RetryAfter().Round(time.Millisecond))
	}
}

// Name is the name of the breaker that rejected.
func (e *Error) Name() string { return e.name }

// Is reports whether target is [ErrOpen].
func (e *Error) Is(target error) bool { return target == ErrOpen }

// Rejected is true: the operation did not run.
func (e *Error) Rejected() bool { return true }

// RetryAfter is how long, from now, until the breaker lets a probe through; 0 when that is now or unknown.
func (e *Error) RetryAfter() time.Duration {
	if e.forced {
		return 0
	}
	return max(0, e.until-time.Since(e.base))
}
