package grpcpolicy

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// pushbackKey is the trailer by which a server says when to come back, in milliseconds (gRPC proposal A6).
const pushbackKey = "grpc-retry-pushback-ms"

// StatusError is how policies, their classifiers and their hooks see a call that failed. The caller gets the status error
// itself, which this one wraps. It is context.Canceled or context.DeadlineExceeded for errors.Is where its Code says so.
type StatusError struct {
	Code codes.Code // such as codes.Unavailable

	method    string
	err       error
	wait      time.Duration
	permanent bool
}

// Error names the method and gives the status.
func (e *StatusError) Error() string { return fmt.Sprintf("grpcpolicy: %s: %v", e.method, e.err) }

// Unwrap returns the error of the call.
func (e *StatusError) Unwrap() error { return e.err }

// Is reports whether target is the context's error that Code stands for.
func (e *StatusError) Is(target error) bool {
	return e.Code == codes.Canceled && target == context.Canceled ||
		e.Code == codes.DeadlineExceeded && target == context.DeadlineExceeded
}

// RetryAfter is what retry pushback or a RetryInfo asks for, the longer of the two, or 0.
func (e *StatusError) RetryAfter() time.Duration { return e.wait }

// Permanent is true when the call must not be sent again: it is not known to be idempotent, the server ruled it out, or it is
// DataLoss, which a repetition cannot mend.
func (e *StatusError) Permanent() bool { return e.permanent }

// failed reports whether code is a failure for the policies: it tells about the health of the other side, and not about what
// was asked of it.
func failed(code codes.Code) bool {
	switch code {
	case codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.Unauthenticated, codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented:
		return false
	default:
		return true
	}
}

// codeOf is the code that grpc sends for err.
func codeOf(err error) codes.Code {
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}

// retryInfo is the delay that the details of err ask for, or 0.
func retryInfo(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return max(0, info.GetRetryDelay().AsDuration())
		}
	}
	return 0
}

// pushback reads the server's wish from a trailer. It rules a further attempt out when it is negative or cannot be read.
func pushback(trailer metadata.MD) (wait time.Duration, stop bool) {
	values := trailer.Get(pushbackKey)
	if len(values) == 0 {
		return 0, false
	}
	ms, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || ms < 0 || len(values) > 1 {
		return 0, true
	}
	return time.Duration(min(ms, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond, false
}
