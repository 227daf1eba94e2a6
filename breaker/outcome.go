package breaker

import (
	"context"
	"errors"

	"github.com/backstay-go/backstay/internal/failure"
)

// Outcome is what one call says about the health of what was called.
type Outcome int

// The three outcomes.
const (
	Success Outcome = iota
	Failure
	Ignored // says nothing: the caller went away, or something on this side refused the call
)

// String is the outcome in lower case.
func (o Outcome) String() string {
	switch o {
	case Success:
		return "success"
	case Failure:
		return "failure"
	default:
		return "ignored"
	}
}

// Classify is the default classifier, for others to build on. nil is a success. A cancellation by the caller, which is an
// error that is context.Canceled or the cause of ctx while ctx is cancelled, is ignored, and so is an error whose own
// Rejected method says that the operation did not run. Everything else is a failure, DeadlineExceeded among it: a
// dependency that hangs until its callers give up is not healthy.
func Classify(ctx context.Context, err error) Outcome {
	switch {
	case err == nil:
		return Success
	case failure.Rejected(err):
		return Ignored
	case ctx.Err() == context.Canceled && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))):
		return Ignored
	default:
		return Failure
	}
}
