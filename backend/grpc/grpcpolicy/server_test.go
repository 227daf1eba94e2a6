package grpcpolicy_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/backend/grpc/grpcpolicy"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/timeout"
)

func TestAServerShedsAndSaysWhenToComeBack(t *testing.T) {
	full := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	_, err := full.Acquire(t.Context())
	require.NoError(t, err)
	limited := ratelimit.New(ratelimit.Config{Rate: 0.001, Burst: 1})
	require.NoError(t, limited.Allow())
	failedOnce := breaker.New(breaker.Config{ConsecutiveFailures: 1, OpenDelay: time.Minute})
	p, err := failedOnce.Acquire(t.Context())
	require.NoError(t, err)
	p.Abort()
	for _, c := range []struct {
		policy  backstay.Policy
		code    codes.Code
		atLeast time.Duration
		atMost  time.Duration
	}{
		{full, codes.ResourceExhausted, time.Second, time.Second},
		{limited, codes.ResourceExhausted, 900 * time.Second, 1000 * time.Second},
		{failedOnce, codes.Unavailable, 30 * time.Second, time.Minute},
	} {
		ran := 0
		s := &service{unary: func(context.Context) error { ran++; return nil }, stream: func(grpc.ServerStream) error { ran++; return nil }}
		conn := dial(t, s, grpc.UnaryInterceptor(grpcpolicy.UnaryServer(c.policy)), grpc.StreamInterceptor(grpcpolicy.StreamServer(c.policy)))
		var trailer metadata.MD
		unary := call(t.Context(), conn, grpc.Trailer(&trailer))
		cs, err := open(t.Context(), conn, chat)
		require.NoError(t, err)
		streamed := recv(cs)
		for err, trailer := range map[error]metadata.MD{unary: trailer, streamed: cs.Trailer()} {
			st := status.Convert(err)
			require.Equal(t, c.code, st.Code())
			require.Equal(t, "the server refused the call", st.Message())
			require.Len(t, st.Details(), 1)
			wait := st.Details()[0].(*errdetails.RetryInfo).GetRetryDelay().AsDuration()
			require.GreaterOrEqual(t, wait, c.atLeast)
			require.LessOrEqual(t, wait, c.atMost)
			require.Len(t, trailer.Get("grpc-retry-pushback-ms"), 1)
			pushed, err := time.ParseDuration(trailer.Get("grpc-retry-pushback-ms")[0] + "ms")
			require.NoError(t, err)
			require.InDelta(t, wait.Seconds(), pushed.Seconds(), 1)
		}
		require.Zero(t, ran)
	}
}

func TestAHandlerRunsOnceAndItsErrorIsTheAnswer(t *testing.T) {
	ran := 0
	s := &service{unary: func(context.Context) error { ran++; return withRetryInfo(codes.Internal, 3) },
		stream: func(grpc.ServerStream) error { ran++; return withRetryInfo(codes.Internal, 3) }}
	conn := dial(t, s, grpc.UnaryInterceptor(grpcpolicy.UnaryServer(stubborn(3))), grpc.StreamInterceptor(grpcpolicy.StreamServer(stubborn(3))))
	want := withRetryInfo(codes.Internal, 3).Error()
	require.EqualError(t, call(t.Context(), conn), want)
	cs, err := open(t.Context(), conn, chat)
	require.NoError(t, err)
	require.EqualError(t, recv(cs), want)
	require.Equal(t, 2, ran)
}

func TestAServersTimeoutReachesTheHandler(t *testing.T) {
	s := &service{unary: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		stream: func(ss grpc.ServerStream) error { <-ss.Context().Done(); return ss.Context().Err() }}
	tm := timeout.New(timeout.Config{After: 10 * time.Millisecond})
	conn := dial(t, s, grpc.UnaryInterceptor(grpcpolicy.UnaryServer(tm)), grpc.StreamInterceptor(grpcpolicy.StreamServer(tm)))
	var trailer metadata.MD
	require.Equal(t, codes.DeadlineExceeded, status.Code(call(t.Context(), conn, grpc.Trailer(&trailer))))
	require.Empty(t, trailer.Get("grpc-retry-pushback-ms"), "it ran: it was not shed")
	cs, err := open(t.Context(), conn, chat)
	require.NoError(t, err)
	require.Equal(t, codes.DeadlineExceeded, status.Code(recv(cs)))
	require.Equal(t, int64(2), tm.Stats().TimedOut)
}

func TestAServerHoldsThePermitUntilTheHandlerReturns(t *testing.T) {
	bh := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	running := make(chan int, 2)
	s := &service{unary: func(context.Context) error { running <- bh.Stats().Running; return nil },
		stream: func(grpc.ServerStream) error { running <- bh.Stats().Running; return nil }}
	conn := dial(t, s, grpc.UnaryInterceptor(grpcpolicy.UnaryServer(bh)), grpc.StreamInterceptor(grpcpolicy.StreamServer(bh)))
	require.NoError(t, call(t.Context(), conn))
	cs, err := open(t.Context(), conn, chat)
	require.NoError(t, err)
	require.Error(t, recv(cs))
	require.Equal(t, 1, <-running)
	require.Equal(t, 1, <-running)
	require.Zero(t, bh.Stats().Running)
}
