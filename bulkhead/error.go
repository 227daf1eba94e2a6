package bulkhead

import (
	"errors"
	"fmt"
)

// ErrFull is what errors.Is finds in every rejection: all permits are taken and so is the queue, or none came free before
// QueueTimeout was over or the caller's context ended.
var ErrFull = errors.New("bulkhead: full")

// Error is a rejection: the operation did not run. One value serves rejections of the same weight, so rejecting allocates
// nothing, unless the caller had waited until its context ended. It answers errors.Is for [ErrFull], and for that context's
// error if there is one, and is safe for concurrent use.
type Error struct {
	cfg    Config
	weight int
	ended  error // of the context that ended while the caller waited
}

// Error names the bulkhead and its limits.
func (e *Error) Error() string {
	if e.Permanent() {
		return fmt.Sprintf("bulkhead %q: the weight %d is not from 1 to the limit of %d", e.cfg.Name, e.weight, e.cfg.MaxConcurrent)
	}
	if e.ended != nil {
		return fmt.Sprintf("bulkhead %q is full: none of its %d permits came free in time for a caller that waited: %v",
			e.cfg.Name, e.cfg.MaxConcurrent, e.ended)
	}
	return fmt.Sprintf("bulkhead %q is full: %d calls run and %d may wait", e.cfg.Name, e.cfg.MaxConcurrent, max(0, e.cfg.MaxQueue))
}

// Name is the name of the bulkhead that rejected.
func (e *Error) Name() string { return e.cfg.Name }

// Is reports whether target is [ErrFull].
func (e *Error) Is(target error) bool { return target == ErrFull }

// Unwrap returns the error of the context that ended while the caller waited, or nil.
func (e *Error) Unwrap() error { return e.ended }

// Rejected is true: the operation did not run.
func (e *Error) Rejected() bool { return true }

// Permanent reports whether the call can never be admitted, because its weight is greater than MaxConcurrent or less than 1.
func (e *Error) Permanent() bool { return e.weight < 1 || e.weight > e.cfg.MaxConcurrent }
