package grpcpolicy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/timeout"
)

// shedDelay is when to come back, where the policy that refused does not say.
const shedDelay = time.Second

// Error is the end of a call by a policy: a rejection, a timeout, or an error of the policy's own. It has a status, so that
// status.Code and status.FromError work, and unwraps to the policy's error, so that errors.Is finds its sentinel.
type Error struct {
	Code   codes.Code
	Method string // such as /grpc.health.v1.Health/Check
	Err    error  // of the policy

	shed bool // by a server: the status is for those outside, who need not know the names of policies
}

// Error names the method and gives the policy's error.
func (e *Error) Error() string { return fmt.Sprintf("grpcpolicy: %s: %v", e.Method, e.Err) }

// Unwrap returns the policy's error.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus is the status with Code, and with a RetryInfo where there is a RetryAfter. The client of a server that refused a
// call does not learn Err.
func (e *Error) GRPCStatus() *status.Status {
	message := e.Error()
	if e.shed {
		message = "the server refused the call"
	}
	return newStatus(e.Code, message, e.RetryAfter())
}

// Rejected forwards what the policy's error says: whether the call was refused here, so that it was not sent or handled.
func (e *Error) Rejected() bool { return rejected(e.Err) }

// Permanent forwards what the policy's error says.
func (e *Error) Permanent() bool {
	p, ok := e.Err.(interface{ Permanent() bool })
	return ok && p.Permanent()
}

// RetryAfter forwards what the policy's error says. Where it does not, it is a second for a server that refused a call, else 0.
func (e *Error) RetryAfter() time.Duration {
	if r, ok := e.Err.(interface{ RetryAfter() time.Duration }); ok {
		if wait := r.RetryAfter(); wait > 0 {
			return wait
		}
	}
	if e.shed {
		return shedDelay
	}
	return 0
}

func newStatus(code codes.Code, message string, wait time.Duration) *status.Status {
	s := status.New(code, message)
	if wait <= 0 {
		return s
	}
	detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	if err != nil {
		return s // it is a status without a failure, which has no use for details
	}
	return detailed
}

// ended is the error of a call that a policy ended with err. ctx is the caller's.
func ended(ctx context.Context, method string, err error) error {
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return err
	}
	return &Error{Code: endCode(ctx, err), Method: method, Err: err}
}

func endCode(ctx context.Context, err error) codes.Code {
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Code()
	case errors.Is(err, timeout.ErrTimeout):
		return codes.DeadlineExceeded
	case errors.Is(err, ratelimit.ErrLimited), errors.Is(err, bulkhead.ErrFull):
		return codes.ResourceExhausted
	case rejected(err):
		return codes.Unavailable
	default:
		return codeOf(err)
	}
}

// trailer says when to come back to clients that let grpc itself repeat. It is rounded up.
func (e *Error) trailer() metadata.MD {
	ms := (e.RetryAfter() + time.Millisecond - 1).Milliseconds()
	return metadata.Pairs(pushbackKey, strconv.FormatInt(ms, 10))
}

func rejected(err error) bool {
	r, ok := err.(interface{ Rejected() bool })
	return ok && r.Rejected()
}
