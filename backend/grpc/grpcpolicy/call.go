package grpcpolicy

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay/timeout"
)

// What a call came to when it was not made, or did not return.
var (
	errNotMade     = status.Error(codes.Internal, "grpcpolicy: a policy returned nil without making the call")
	errNotReturned = status.Error(codes.Internal, "grpcpolicy: the call panicked")
)

// call is the state of one call. One goroutine at a time uses it, since no policy runs an operation twice at once.
type call struct {
	ctx        context.Context // the caller's
	method     string
	idempotent bool
	do         func(ctx context.Context) (hints, error) // makes it once

	made  bool
	again bool  // whether it may be made once more
	err   error // of the latest attempt
	seen  error // how policies see that, nil for success
}

// hints is what an attempt says about a further one, beside its status.
type hints struct {
	unsent  bool // it never had a connection
	trailer metadata.MD
}

func newCall(ctx context.Context, method string, idempotent bool) *call {
	return &call{ctx: ctx, method: method, idempotent: idempotent, err: errNotMade}
}

// attempt is the innermost function. Asked again for a call that must not be repeated, it does nothing and answers as before,
// so that not even a policy that repeats everything can repeat a payment.
func (c *call) attempt(ctx context.Context) error {
	if c.made && !c.again {
		return c.seen
	}
	c.made, c.again = true, c.idempotent
	c.err, c.seen = errNotReturned, errNotReturned // unless it returns
	var h hints
	if h, c.err = c.do(ctx); c.err == nil {
		c.seen = nil
		return nil
	}
	c.judge(ctx, h)
	return c.seen
}

func (c *call) judge(ctx context.Context, h hints) {
	code := codeOf(c.err)
	switch {
	case rejected(c.err): // by policies further in
		c.seen = c.err
	case !failed(code):
		c.seen, c.again = nil, false
	default:
		wait, stop := pushback(h.trailer)
		c.again = !stop && (c.idempotent || h.unsent && code == codes.Unavailable)
		c.seen = &StatusError{Code: code, method: c.method, err: c.err,
			wait: max(wait, retryInfo(c.err)), permanent: !c.again || code == codes.DataLoss}
		if code == codes.DeadlineExceeded {
			awaitDeadline(ctx)
		}
	}
}

// awaitDeadline returns once ctx knows that its deadline has passed, if it has: other timers for the same moment may fire
// before, and a timeout has to recognise the error as its own.
func awaitDeadline(ctx context.Context) {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= 0 {
		<-ctx.Done()
	}
}

// finish turns the verdict of the policies into what the caller gets.
func (c *call) finish(err error) error {
	if err == nil {
		return c.err
	}
	if latest, ok := errors.AsType[*StatusError](err); ok && latest == c.seen {
		_, asItWas := err.(*StatusError)
		if asItWas || c.ctx.Err() == nil && !errors.Is(err, timeout.ErrTimeout) {
			return c.err
		}
	}
	return ended(c.ctx, c.method, err)
}
