package cache

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrClosed says that the cache has been closed: before the call, or while its load was running.
	ErrClosed = errors.New("closed")
	// ErrLoadTimeout says that the loader gave up because Config.LoadTimeout had passed. The error wraps the
	// loader's own. Whether the source did the work is in doubt.
	ErrLoadTimeout = errors.New("load timed out")
	// ErrStore says that the Store failed a Set or a Delete. Whether the change was made is in doubt, so the old
	// entry may still be served until its TTL ends; the call may be repeated.
	ErrStore = errors.New("store failed")
	// ErrNotFound says that the source has nothing under the key. A loader returns an error that is ErrNotFound to say
	// so; see also WithNotFound.
	ErrNotFound = errors.New("not found")
	// ErrKey says that the key is not equal to itself, as a floating-point NaN is not, and so can never be found.
	ErrKey = errors.New("key is not equal to itself")
)

// Error is every error that the cache itself makes, but for [PanicError]; a loader's error is returned as it is.
// errors.Is finds both its Kind and its Cause.
type Error struct {
	// Name is the cache's Config.Name.
	Name string
	// Kind is ErrClosed, ErrLoadTimeout, ErrStore, ErrNotFound or ErrKey.
	Kind error
	// Limit is the load timeout that passed, with ErrLoadTimeout; otherwise zero.
	Limit time.Duration
	// Cause is the error of the loader or the store; nil when neither was called.
	Cause error
}

// Error describes the failure, beginning with the package and the cache's name.
func (e *Error) Error() string {
	text := fmt.Sprintf("cache %q: %v", e.Name, e.Kind)
	if e.Limit > 0 {
		text += fmt.Sprintf(" after %v", e.Limit)
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Is reports whether target is the Kind.
func (e *Error) Is(target error) bool { return target == e.Kind }

// Unwrap returns the Cause.
func (e *Error) Unwrap() error { return e.Cause }

// Rejected reports whether the call was refused before loader or store were called.
func (e *Error) Rejected() bool { return e.Cause == nil && e.Kind != ErrNotFound }

// Permanent reports whether the same call must fail again: the cache is closed, the key unusable or not in the source,
// or the Cause says so.
func (e *Error) Permanent() bool {
	cause, ok := e.Cause.(interface{ Permanent() bool })
	return e.Kind == ErrClosed || e.Kind == ErrKey || e.Kind == ErrNotFound || ok && cause.Permanent()
}

// RetryAfter is how long the Cause asks to wait before another attempt, or zero.
func (e *Error) RetryAfter() time.Duration {
	if cause, ok := e.Cause.(interface{ RetryAfter() time.Duration }); ok {
		return cause.RetryAfter()
	}
	return 0
}

// PanicError is what every waiting caller gets from a load that panicked or called runtime.Goexit. It is an error
// and not a panic of the callers, because the load belongs to none of them.
type PanicError struct {
	// Name is the cache's Config.Name.
	Name string
	// Value is what was passed to panic; nil for runtime.Goexit.
	Value any
	// Stack is the stack of the load, as debug.Stack formats it.
	Stack []byte
}

// Error describes the panic with its stack, beginning with the package and the cache's name.
func (e *PanicError) Error() string {
	if e.Value == nil {
		return fmt.Sprintf("cache %q: loader called runtime.Goexit\n\n%s", e.Name, e.Stack)
	}
	return fmt.Sprintf("cache %q: loader panicked: %v\n\n%s", e.Name, e.Value, e.Stack)
}

// Unwrap returns the Value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
