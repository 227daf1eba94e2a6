package ratelimit

import (
	"errors"
	"fmt"
	"time"
)

// ErrLimited is what errors.Is finds in every rejection: the rate is used up, and the turn would not come, or did not, before
// the caller's time was over.
var ErrLimited = errors.New("ratelimit: limited")

// Error is a rejection: the operation did not run. One value serves rejections of the same weight, so rejecting allocates
// nothing, unless the caller had waited until its context ended. It answers errors.Is for [ErrLimited], and for that
// context's error if there is one, and is safe for concurrent use.
type Error struct {
	limiter *Limiter
	cfg     Config
	weight  int
	ended   error // of the context that ended while the caller waited
}

// Error names the limiter and says when there will be room.
func (e *Error) Error() string {
	if e.Permanent() {
		return fmt.Sprintf("ratelimit %q: the weight %d is not from 1 to the burst of %d", e.cfg.Name, e.weight, e.cfg.Burst)
	}
	if e.ended != nil {
		return fmt.Sprintf("ratelimit %q: the turn did not come in time for a caller that waited, try again in %v: %v",
			e.cfg.Name, e.RetryAfter().Round(time.Millisecond), e.ended)
	}
	return fmt.Sprintf("ratelimit %q: %v a second with bursts of %d are used up: try again in %v",
		e.cfg.Name, e.cfg.Rate, e.cfg.Burst, e.RetryAfter().Round(time.Millisecond))
}

// Name is the name of the limiter that rejected.
func (e *Error) Name() string { return e.cfg.Name }

// Is reports whether target is [ErrLimited].
func (e *Error) Is(target error) bool { return target == ErrLimited }

// Unwrap returns the error of the context that ended while the caller waited, or nil.
func (e *Error) Unwrap() error { return e.ended }

// Rejected is true: the operation did not run.
func (e *Error) Rejected() bool { return true }

// Permanent reports whether the call can never pass, because its weight is greater than Burst or less than 1.
func (e *Error) Permanent() bool { return e.weight < 1 || e.weight > e.cfg.Burst }

// RetryAfter is how long, from now, until the same call would pass at once, those that wait already being served before it.
// It is computed when asked and takes a lock that no passing call takes.
func (e *Error) RetryAfter() time.Duration {
	if e.Permanent() {
		return 0
	}
	return e.limiter.delay(int64(e.weight))
}
