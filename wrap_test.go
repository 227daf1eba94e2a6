package backstay_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/policytest"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBroken = errors.New("broken")

// tracer is a foreign policy that records when it was entered and left.
type tracer struct {
	name  string
	trail *[]string
}

func (tr tracer) Do(ctx context.Context, op func(context.Context) error) error {
	*tr.trail = append(*tr.trail, "+"+tr.name)
	defer func() { *tr.trail = append(*tr.trail, "-"+tr.name) }()
	return op(ctx)
}

func double(_ context.Context, n int) (int, error) { return 2 * n, nil }

func TestTheFirstPolicyIsOutermost(t *testing.T) {
	var trail []string
	fn := backstay.Wrap(double, tracer{"a", &trail}, backstay.Chain(tracer{"b", &trail}, tracer{"c", &trail}), tracer{"d", &trail})
	out, err := fn(t.Context(), 21)
	require.NoError(t, err)
	require.Equal(t, 42, out)
	require.Equal(t, []string{"+a", "+b", "+c", "+d", "-d", "-c", "-b", "-a"}, trail)
}

func TestValueAndErrorTravelTogether(t *testing.T) {
	partial := func(context.Context, string) (string, error) { return "half", errBroken }
	var trail []string
	for name, policy := range map[string]backstay.Policy{
		"retry":    retry.New(retry.Config{MaxAttempts: 2, InitialInterval: -1}),
		"breaker":  breaker.New(breaker.Config{}),
		"bulkhead": bulkhead.New(bulkhead.Config{}),
		"timeout":  timeout.New(timeout.Config{}),
		"foreign":  tracer{"x", &trail},
	} {
		out, err := backstay.Wrap(partial, policy)(t.Context(), "")
		require.ErrorIs(t, err, errBroken, name)
		require.Equal(t, "half", out, name)
	}
}

func TestCheckMakesABadValueAFailureThatPoliciesSee(t *testing.T) {
	calls := 0
	status := func(context.Context, struct{}) (int, error) { calls++; return 503, nil }
	checked := backstay.Check(status, func(code int) error {
		if code >= 500 {
			return errBroken
		}
		return nil
	})
	out, err := backstay.Wrap(checked, retry.New(retry.Config{MaxAttempts: 3, InitialInterval: -1}))(t.Context(), struct{}{})
	require.ErrorIs(t, err, errBroken)
	require.Equal(t, 503, out)
	require.Equal(t, 3, calls)
}

func TestWrapErrAndCall(t *testing.T) {
	calls := 0
	handle := backstay.WrapErr(func(_ context.Context, n int) error {
		if calls++; calls < n {
			return errBroken
		}
		return nil
	}, retry.New(retry.Config{InitialInterval: -1}))
	require.NoError(t, handle(t.Context(), 3))
	require.Equal(t, 3, calls)

	out, err := backstay.Call(t.Context(), func(context.Context) (string, error) { return strconv.Itoa(calls), nil },
		breaker.New(breaker.Config{}))
	require.NoError(t, err)
	require.Equal(t, "3", out)
}

func TestALocalRejectionNeitherTripsTheBreakerNorIsRetried(t *testing.T) {
	full := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	permit, err := full.Acquire(t.Context())
	require.NoError(t, err)
	defer permit.Done(nil)
	b := breaker.New(breaker.Config{ConsecutiveFailures: 1})
	fn := backstay.Wrap(double, retry.New(retry.Config{InitialInterval: -1}), b, full)
	_, err = fn(t.Context(), 1)
	require.ErrorIs(t, err, bulkhead.ErrFull)
	require.Equal(t, breaker.Closed, b.State())
	require.EqualValues(t, 1, full.Stats().Rejected, "one attempt only")
}

func TestNilIsRefusedAtConstruction(t *testing.T) {
	require.PanicsWithValue(t, "backstay: Wrap: policy 1 is nil", func() {
		backstay.Wrap(double, breaker.New(breaker.Config{}), nil)
	})
	require.PanicsWithValue(t, "backstay: Wrap: the function is nil", func() { backstay.Wrap[int, int](nil) })
	require.PanicsWithValue(t, "backstay: WrapErr: the function is nil", func() { backstay.WrapErr[int](nil) })
	require.Panics(t, func() { backstay.Chain(nil) })
	require.Panics(t, func() { backstay.Check(double, nil) })
	require.Panics(t, func() { _, _ = backstay.Call[int](t.Context(), nil) })
}

// abandoner breaks the contract: it returns while the operation runs on.
type abandoner struct{ left chan struct{} }

func (a abandoner) Do(ctx context.Context, op func(context.Context) error) error {
	go func() {
		defer close(a.left)
		_ = op(ctx)
	}()
	return errBroken
}

func TestAnAbandonedOperationCannotTouchTheResult(t *testing.T) {
	release := make(chan struct{})
	a := abandoner{left: make(chan struct{})}
	fn := backstay.Wrap(func(context.Context, int) (int, error) { <-release; return 99, nil }, a)
	out, err := fn(t.Context(), 1)
	close(release)
	<-a.left
	require.ErrorIs(t, err, errBroken)
	require.Zero(t, out)
}

func builtins() []backstay.Policy {
	return []backstay.Policy{
		retry.New(retry.Config{}),
		breaker.New(breaker.Config{}),
		ratelimit.New(ratelimit.Config{Rate: 1e9}),
		bulkhead.New(bulkhead.Config{MaxQueue: 8}),
	}
}

func TestASuccessfulCallAllocatesNothing(t *testing.T) {
	ctx := context.Background()
	fn := backstay.Wrap(double, builtins()...)
	require.Zero(t, testing.AllocsPerRun(200, func() { _, _ = fn(ctx, 1) }))

	handler := backstay.WrapErr(func(context.Context, int) error { return nil }, builtins()...)
	require.Zero(t, testing.AllocsPerRun(200, func() { _ = handler(ctx, 1) }))

	chained := backstay.Chain(builtins()...)
	fn = backstay.Wrap(double, chained)
	require.Zero(t, testing.AllocsPerRun(200, func() { _, _ = fn(ctx, 1) }))
	op := func(context.Context) error { return nil }
	require.Zero(t, testing.AllocsPerRun(200, func() { _ = chained.Do(ctx, op) }))
}

func TestEachBuiltInAndTheirChainKeepTheContract(t *testing.T) {
	smallest := map[string]func() backstay.Policy{
		"retry":     func() backstay.Policy { return retry.New(retry.Config{InitialInterval: time.Microsecond}) },
		"breaker":   func() backstay.Policy { return breaker.New(breaker.Config{}) },
		"bulkhead":  func() backstay.Policy { return bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 100}) },
		"ratelimit": func() backstay.Policy { return ratelimit.New(ratelimit.Config{Rate: 1e6, MaxWait: -1}) },
		"timeout":   func() backstay.Policy { return timeout.New(timeout.Config{After: time.Minute}) },
		"empty":     func() backstay.Policy { return backstay.Chain() },
		"chain": func() backstay.Policy {
			return backstay.Chain(retry.New(retry.Config{InitialInterval: time.Microsecond}),
				breaker.New(breaker.Config{}), bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 100}))
		},
	}
	for name, newPolicy := range smallest {
		t.Run(name, func(t *testing.T) {
			policytest.Run(t, func() policytest.Policy { return newPolicy() })
		})
	}
}

func TestGoexitReleasesEveryPermit(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	fn := backstay.Wrap(func(context.Context, int) (int, error) { runtime.Goexit(); return 0, nil }, b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = fn(context.Background(), 1)
	}()
	<-done
	require.Zero(t, b.Stats().Running)
}
