package pubsub

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrClosed is returned by a Bus or Consumer that has been closed, and by the second call of Run.
	ErrClosed = errors.New("pubsub: closed")
	// ErrDrainTimeout is returned by Consumer.Run when handlers were still running after DrainTimeout. Their messages
	// have been given back to the broker and will be delivered again.
	ErrDrainTimeout = errors.New("pubsub: handlers were still running after the drain timeout")
	// ErrUnsupported is what every *CapabilityError is.
	ErrUnsupported = errors.New("pubsub: not supported by the driver")
	// ErrInDoubt is wrapped by the error of a message that the broker may have accepted: the request was sent and its
	// answer lost. Publishing again may duplicate it, with the same ID.
	ErrInDoubt = errors.New("in doubt")
)

// CapabilityError says that the driver cannot give what was asked for. It matches ErrUnsupported.
type CapabilityError struct {
	// Driver is the name of the driver.
	Driver string
	// Capability is the missing one, such as "Ordered".
	Capability string
}

// Error names the driver and the capability.
func (e *CapabilityError) Error() string {
	return fmt.Sprintf("pubsub: driver %s lacks %s", e.Driver, e.Capability)
}

// Is matches ErrUnsupported.
func (e *CapabilityError) Is(target error) bool { return target == ErrUnsupported }

// Permanent is true: trying again does not help.
func (e *CapabilityError) Permanent() bool { return true }

// Failure is one message that Publish could not get accepted.
type Failure struct {
	// Index is its place among the arguments.
	Index int
	// ID is the message's, filled in if it was empty.
	ID string
	// Err is the cause.
	Err error
	// InDoubt is true when the broker may have accepted the message all the same.
	InDoubt bool
}

// PublishError lists the messages that were not accepted, or not known to be; all others were. Unwrap gives the causes.
type PublishError struct {
	// Failed has at least one entry, in order of Index.
	Failed []Failure
	// Total is the number of messages in the call.
	Total int
}

// Error gives the count and the first cause.
func (e *PublishError) Error() string {
	f := e.Failed[0]
	return fmt.Sprintf("pubsub: %d of %d messages not published, first %s: %v", len(e.Failed), e.Total, f.ID, f.Err)
}

// Unwrap returns the causes.
func (e *PublishError) Unwrap() []error {
	errs := make([]error, len(e.Failed))
	for i, f := range e.Failed {
		errs[i] = f.Err
	}
	return errs
}

// RetryAfter makes err, as the result of a Handler, ask for the next attempt after d instead of the subscription's
// backoff; zero and negative mean at once. The attempt counts. A nil err stays nil.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{after: max(d, 0), err: err}
}

// DeadLetter makes err, as the result of a Handler, send the message to the dead-letter topic without further attempts:
// for a message that can never be handled. A nil err stays nil.
func DeadLetter(err error) error {
	if err == nil {
		return nil
	}
	return &deadLetterError{err: err}
}

type retryAfterError struct {
	after time.Duration
	err   error
}

func (e *retryAfterError) Error() string             { return e.err.Error() }
func (e *retryAfterError) Unwrap() error             { return e.err }
func (e *retryAfterError) RetryAfter() time.Duration { return e.after }

type deadLetterError struct{ err error }

func (e *deadLetterError) Error() string   { return e.err.Error() }
func (e *deadLetterError) Unwrap() error   { return e.err }
func (e *deadLetterError) Permanent() bool { return true }

// panicError is the failure of a handler that panicked.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string {
	return fmt.Sprintf("handler panicked: %v\n%s", e.value, e.stack)
}

func (e *panicError) Unwrap() error {
	err, _ := e.value.(error)
	return err
}

// errNotSent is the failure of a sound message whose call was refused because of another.
var errNotSent = errors.New("not sent: another message of the call is invalid")

// invalidError is the failure of a message that can never be published as it is.
type invalidError struct{ err error }

func (e *invalidError) Error() string   { return e.err.Error() }
func (e *invalidError) Unwrap() error   { return e.err }
func (e *invalidError) Permanent() bool { return true }
