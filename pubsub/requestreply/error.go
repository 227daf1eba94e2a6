package requestreply

import (
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

var (
	// ErrClosed says that the client was closed, or its bus, or that its subscription has ended.
	ErrClosed = errors.New("requestreply: closed")
	// ErrFull says that MaxCalls calls were outstanding.
	ErrFull = errors.New("requestreply: too many calls are outstanding")
	// ErrNoResponders says that the probe found no server.
	ErrNoResponders = errors.New("requestreply: no responders")
)

// Error is a Call that failed on this side. Unwrap gives the cause: one of the errors above, that of the context, of the
// publisher or of a codec.
type Error struct {
	// Client is the name of the client.
	Client string
	// Topic is where requests go.
	Topic string
	// InDoubt is true when the request may have been run, or may still be.
	InDoubt bool
	// Err is the cause.
	Err error
}

// Error names the client and the cause.
func (e *Error) Error() string {
	doubt := ""
	if e.InDoubt {
		doubt = " (in doubt)"
	}
	return fmt.Sprintf("requestreply: client %q%s: %v", e.Client, doubt, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches pubsub.ErrInDoubt if InDoubt is set.
func (e *Error) Is(target error) bool { return e.InDoubt && target == pubsub.ErrInDoubt }

// Rejected is true for ErrFull: the call was refused here and nothing was sent.
func (e *Error) Rejected() bool { return e.Err == ErrFull }

// Permanent is true when trying again cannot help: the request cannot be encoded or published, or the reply not decoded.
func (e *Error) Permanent() bool {
	var p interface{ Permanent() bool }
	return !e.InDoubt && errors.As(e.Err, &p) && p.Permanent()
}

// Codes of a RemoteError that a Server makes itself. An application's own begin with another word than these.
const (
	// CodeError is that of an error without a code.
	CodeError = "error"
	// CodePanic is that of a function that panicked.
	CodePanic = "panic"
	// CodeExpired says that the request came past its deadline. It was not run.
	CodeExpired = "expired"
	// CodeUndecodable says that the server could not read the request. It was not run.
	CodeUndecodable = "undecodable"
	// CodeUnsendable says that the request was run, and its result could not be encoded or is too large for the broker.
	CodeUnsendable = "unsendable"
)

// RemoteError is an error that the server has answered with. A Server's function may return one to choose the code and
// the text; other errors give their text, the result of a Code method if they have one, and the behaviours below as they
// themselves have them, not errors that they wrap. One that came from another server goes on as it is: wrap it, unless its
// NotExecuted is true of this server too.
type RemoteError struct {
	// Code is for programs: 1 to 64 letters, digits, '_', '-' and '.'.
	Code string
	// Text is for people: one line of at most 1 KiB.
	Text string
	// NotExecuted is true when the server did not run the request, for instance since its bulkhead was full.
	NotExecuted bool
	// Final is true when the server said that trying again cannot help.
	Final bool
	// After is how long the server asks to wait before a repetition, or zero.
	After time.Duration
}

// Error gives code and text.
func (e *RemoteError) Error() string {
	return "requestreply: the server answered " + e.Code + ": " + e.Text
}

// Permanent is Final.
func (e *RemoteError) Permanent() bool { return e.Final }

// RetryAfter is After.
func (e *RemoteError) RetryAfter() time.Duration { return e.After }

// permanentError is one of a codec.
type permanentError struct{ err error }

func (e *permanentError) Error() string   { return e.err.Error() }
func (e *permanentError) Unwrap() error   { return e.err }
func (e *permanentError) Permanent() bool { return true }
