package grpcpolicy_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/backend/grpc/grpcpolicy"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

func TestCodesAreMapped(t *testing.T) {
	for code, failure := range map[codes.Code]bool{
		codes.OK: false, codes.InvalidArgument: false, codes.NotFound: false, codes.AlreadyExists: false,
		codes.PermissionDenied: false, codes.Unauthenticated: false, codes.FailedPrecondition: false, codes.OutOfRange: false,
		codes.Unimplemented: false, codes.Canceled: true, codes.Unknown: true, codes.DeadlineExceeded: true,
		codes.ResourceExhausted: true, codes.Aborted: true, codes.Internal: true, codes.Unavailable: true, codes.DataLoss: true,
	} {
		s, calls := failing(code)
		b, serverB := breaker.New(breaker.Config{}), breaker.New(breaker.Config{})
		conn := dial(t, s, grpcpolicy.UnaryClient(anyMethod, atOnce(3), b), grpc.UnaryInterceptor(grpcpolicy.UnaryServer(serverB)))
		err := call(t.Context(), conn)
		require.Equal(t, code, status.Code(err))
		want := int64(1)
		if failure && code != codes.DataLoss {
			want = 3
		}
		require.Equal(t, want, calls.Load(), code)
		require.Equal(t, failure, b.Stats().Failures == want && b.Stats().Successes == 0, code)
		require.Equal(t, failure, serverB.Stats().Failures == want && serverB.Stats().Successes == 0, code)
	}
}

func TestTheCallerGetsTheOriginalStatusErrorInTheEnd(t *testing.T) {
	n := 0
	original := func() error { n++; return withRetryInfo(codes.Unavailable, time.Duration(n)) }
	s := &service{unary: func(context.Context) error { return original() }}
	b := breaker.New(breaker.Config{ConsecutiveFailures: 2})
	conn := dial(t, s, grpcpolicy.UnaryClient(anyMethod, atOnce(5), b))
	err := call(t.Context(), conn)
	require.Equal(t, 2, n, "the breaker opened")
	st, ok := err.(interface{ GRPCStatus() *status.Status })
	require.True(t, ok, "directly: %T", err)
	require.Equal(t, status.Convert(withRetryInfo(codes.Unavailable, 2)).Proto().String(), st.GRPCStatus().Proto().String())
	var mine *grpcpolicy.StatusError
	require.NotErrorAs(t, err, &mine)
}

func TestOnlyWhatMayBeRepeatedIsSentAgain(t *testing.T) {
	everything := retry.New(retry.Config{InitialInterval: -1}, retry.WithRetryable(func(error) bool { return true }))
	for _, policy := range []backstay.Policy{atOnce(3), everything, stubborn(3), backstay.Chain(atOnce(3))} {
		for _, c := range []struct {
			idempotent func(string) bool
			key        string
			want       int64
		}{
			{nil, "", 1},
			{func(method string) bool { return method != echo }, "", 1},
			{func(method string) bool { return method == echo }, "", 3},
			{nil, "idempotency-key", 3},
			{nil, "x-idempotency-key", 3},
		} {
			s, calls := failing(codes.Unavailable)
			ctx := t.Context()
			if c.key != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, c.key, "42")
			}
			err := call(ctx, dial(t, s, grpcpolicy.UnaryClient(c.idempotent, policy)))
			require.Equal(t, codes.Unavailable, status.Code(err))
			require.Equal(t, c.want, calls.Load(), "%T %v", policy, c.key)
		}
	}
}

func TestWhatNeverHadAConnectionIsSentAgain(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	b := breaker.New(breaker.Config{})
	conn, err := grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(grpcpolicy.UnaryClient(nil, atOnce(3), b)),
		grpc.WithStreamInterceptor(grpcpolicy.StreamClient(atOnce(3), b)))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	require.Equal(t, codes.Unavailable, status.Code(call(t.Context(), conn)))
	require.Equal(t, int64(3), b.Stats().Failures)
	_, err = open(t.Context(), conn, chat)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, int64(6), b.Stats().Failures)
}

func TestPushbackAndRetryInfoAreHonoured(t *testing.T) {
	for name, c := range map[string]struct {
		pushback []string
		info     time.Duration
		want     time.Duration
		calls    int
	}{
		"none":             {nil, 0, 0, 2},
		"pushback":         {[]string{"7000"}, 0, 7 * time.Second, 2},
		"RetryInfo":        {nil, 5 * time.Second, 5 * time.Second, 2},
		"both":             {[]string{"1000"}, 5 * time.Second, 5 * time.Second, 2},
		"zero":             {[]string{"0"}, 0, 0, 2},
		"negative":         {[]string{"-1"}, time.Second, 0, 1},
		"malformed":        {[]string{"soon"}, 0, 0, 1},
		"empty":            {[]string{""}, 0, 0, 1},
		"twice":            {[]string{"1", "2"}, 0, 0, 1},
		"out of range":     {[]string{"99999999999999999999"}, 0, 0, 1},
		"negative info":    {nil, -time.Second, 0, 2},
		"fraction refused": {[]string{"1.5"}, 0, 0, 1},
	} {
		for _, policy := range []backstay.Policy{atOnce(2), retry.New(retry.Config{MaxAttempts: 2, InitialInterval: -1},
			retry.WithRetryable(func(error) bool { return true }))} {
			synctest.Test(t, func(t *testing.T) {
				var times []time.Duration
				start := time.Now()
				invoke := func(_ context.Context, _ string, _, _ any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
					times = append(times, time.Since(start))
					for _, opt := range opts {
						if trailer, ok := opt.(grpc.TrailerCallOption); ok && len(times) == 1 {
							*trailer.TrailerAddr = metadata.MD{}
							trailer.TrailerAddr.Append("grpc-retry-pushback-ms", c.pushback...)
						}
					}
					if len(times) == 1 {
						return withRetryInfo(codes.ResourceExhausted, c.info)
					}
					return status.Error(codes.ResourceExhausted, "")
				}
				err := grpcpolicy.UnaryClient(anyMethod, policy)(t.Context(), echo, nil, nil, nil, invoke)
				require.Equal(t, codes.ResourceExhausted, status.Code(err))
				require.Len(t, times, c.calls, name)
				require.Equal(t, c.want, times[len(times)-1], name)
			})
		}
	}
}

func TestPushbackOfARealServerRulesARetryOut(t *testing.T) {
	for value, want := range map[string]int{"-1": 1, "1": 3} {
		n := 0
		s := &service{unary: func(ctx context.Context) error {
			n++
			setPushback(ctx, value)
			return status.Error(codes.Unavailable, "")
		}}
		require.Error(t, call(t.Context(), dial(t, s, grpcpolicy.UnaryClient(anyMethod, atOnce(3)))))
		require.Equal(t, want, n)
	}
}

func TestLocalRejectionsHaveACodeAndKeepTheirSentinel(t *testing.T) {
	open := breaker.New(breaker.Config{Mode: "force_open"})
	full := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	_, err := full.Acquire(t.Context())
	require.NoError(t, err)
	limited := ratelimit.New(ratelimit.Config{Rate: 0.001, Burst: 1})
	require.NoError(t, limited.Allow())
	for _, c := range []struct {
		policy   backstay.Policy
		sentinel error
		code     codes.Code
	}{
		{open, breaker.ErrOpen, codes.Unavailable},
		{full, bulkhead.ErrFull, codes.ResourceExhausted},
		{limited, ratelimit.ErrLimited, codes.ResourceExhausted},
		{verdict{errors.New("own")}, nil, codes.Unknown},
	} {
		s, calls := failing(codes.OK)
		outer := breaker.New(breaker.Config{})
		conn := dial(t, s, grpcpolicy.UnaryClient(anyMethod, outer), grpcpolicy.UnaryClient(anyMethod, atOnce(3), c.policy),
			grpcpolicy.StreamClient(c.policy))
		err := call(t.Context(), conn)
		require.Equal(t, c.code, status.Code(err))
		var e *grpcpolicy.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, echo, e.Method)
		if c.sentinel != nil {
			require.ErrorIs(t, err, c.sentinel)
			require.True(t, e.Rejected())
			require.Zero(t, calls.Load())
			require.Equal(t, int64(1), outer.Stats().Ignored, "policies further out see a rejection")
			_, err = conn.NewStream(t.Context(), &grpc.StreamDesc{}, chat)
			require.ErrorIs(t, err, c.sentinel)
			require.Equal(t, c.code, status.Code(err))
		}
	}
}

func TestATimeoutIsDeadlineExceededAndErrTimeout(t *testing.T) {
	s := &service{unary: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	tm := timeout.New(timeout.Config{After: 20 * time.Millisecond})
	b := breaker.New(breaker.Config{})
	err := call(t.Context(), dial(t, s, grpcpolicy.UnaryClient(nil, tm, b)))
	require.ErrorIs(t, err, timeout.ErrTimeout)
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.Equal(t, int64(1), b.Stats().Failures)
}

func TestACancellationByTheCallerCountsAsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &service{unary: func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }}
	b := breaker.New(breaker.Config{})
	err := call(ctx, dial(t, s, grpcpolicy.UnaryClient(anyMethod, atOnce(3), b)))
	require.Equal(t, codes.Canceled, status.Code(err))
	require.Equal(t, int64(1), b.Stats().Ignored)
}

func TestACancellationDuringTheDelayIsCanceledAndKeepsTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		r := retry.New(retry.Config{InitialInterval: time.Minute, MaxInterval: time.Minute, Jitter: -1})
		invoke := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			return status.Error(codes.Aborted, "")
		}
		err := grpcpolicy.UnaryClient(anyMethod, r)(ctx, echo, nil, nil, nil, invoke)
		require.Equal(t, codes.Canceled, status.Code(err))
		var cause *grpcpolicy.StatusError
		require.ErrorAs(t, err, &cause)
		require.Equal(t, codes.Aborted, cause.Code)
	})
}

func TestAPanicPassesThroughAndGivesEverythingBack(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	boom := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { panic("boom") }
	require.PanicsWithValue(t, "boom", func() {
		_ = grpcpolicy.UnaryClient(anyMethod, atOnce(3), b)(t.Context(), echo, nil, nil, nil, boom)
	})
	require.Zero(t, b.Stats().Running)
}

func TestConstructorsRefuseNil(t *testing.T) {
	for _, construct := range []func(){
		func() { grpcpolicy.UnaryClient(nil, nil) },
		func() { grpcpolicy.StreamClient(nil) },
		func() { grpcpolicy.UnaryServer(nil) },
		func() { grpcpolicy.StreamServer(nil) },
		func() { grpcpolicy.UnaryServer(atOnce(2)) },
		func() { grpcpolicy.StreamServer(backstay.Chain(atOnce(2))) },
		func() { grpcpolicy.PerMethod[*breaker.Breaker](nil) },
	} {
		require.Panics(t, construct)
	}
}

func TestAPolicyPerMethodIsThatOfTheMethod(t *testing.T) {
	set := breaker.NewSet[string](breaker.SetConfig{Name: "methods"})
	s, _ := failing(codes.Internal)
	conn := dial(t, s, grpcpolicy.UnaryClient(nil, backstay.Chain(grpcpolicy.PerMethod(set))))
	require.Error(t, call(t.Context(), conn))
	require.Equal(t, int64(1), set.Get(echo).Stats().Failures)
	require.Error(t, grpcpolicy.PerMethod(set).Do(t.Context(), nil))
}

func TestErrorsAreForwarded(t *testing.T) {
	e := &grpcpolicy.Error{Code: codes.Unavailable, Method: echo, Err: retry.Permanent(withRetryInfo(codes.Aborted, 1))}
	require.True(t, e.Permanent())
	require.False(t, e.Rejected())
	require.Zero(t, e.RetryAfter())
	require.Empty(t, e.GRPCStatus().Details())
	require.Contains(t, e.Error(), "grpcpolicy: "+echo+": ")
	require.Equal(t, strconv.Itoa(int(codes.Unavailable)), strconv.Itoa(int(status.Code(e))))
}
