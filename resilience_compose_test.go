package backstay_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

func TestT24_DerivingTwiceFromOnePipelineIsIndependent(t *testing.T) {
	var trail []string
	base := slices.Grow([]backstay.Policy{tracer{"base", &trail}}, 8) // room in which an append could overwrite
	first := backstay.Chain(append(base, tracer{"first", &trail})...)
	second := backstay.Chain(append(base, tracer{"second", &trail})...)
	clear(base[:2])

	require.NoError(t, first.Do(t.Context(), succeed))
	require.Equal(t, []string{"+base", "+first", "-first", "-base"}, trail)
	trail = nil
	_, err := backstay.Wrap(double, second)(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, []string{"+base", "+second", "-second", "-base"}, trail)
}

func TestT25_ALocalRejectionNeitherTripsABreakerNorIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
		held, err := full.Acquire(t.Context())
		require.NoError(t, err)
		defer held.Abort()
		spent := ratelimit.New(ratelimit.Config{Rate: 1, Burst: 1})
		require.NoError(t, spent.Allow())
		open := tripped(t, breaker.Config{})

		for name, rejecting := range map[string]backstay.Policy{"bulkhead": full, "rate limit": spent, "breaker": open} {
			outer := breaker.New(consecutive(breaker.Config{}))
			retrier := fixed(3, 30*time.Millisecond)
			start := time.Now()
			err := backstay.Chain(retrier, outer, rejecting).Do(t.Context(), succeed)
			require.Error(t, err, name)
			require.Zero(t, time.Since(start), name)
			require.Zero(t, retrier.Stats().Retries, name)
			require.Equal(t, breaker.Closed, outer.State(), name)
			require.EqualValues(t, 1, outer.Stats().Ignored, name)
		}
	})
}

func TestARejectionWrappedByApplicationCodeIsAFailureOfThatOperation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deeper := tripped(t, breaker.Config{})
		outer := breaker.New(consecutive(breaker.Config{}))
		attempts := 0
		err := backstay.Chain(fixed(3, time.Millisecond), outer).Do(t.Context(), func(ctx context.Context) error {
			attempts++
			return fmt.Errorf("reading the basket: %w", deeper.Do(ctx, succeed))
		})
		require.ErrorIs(t, err, breaker.ErrOpen)
		require.Equal(t, breaker.Open, outer.State())
		require.Equal(t, 1, attempts, "the outer breaker, now open, rejects the second attempt")
	})
}

// TestReconfiguringUnderLoadLosesNoPermit changes every Config while callers hold permits, wait in both queues and repeat what
// fails once. The largest limit that there ever is bounds what runs at once, and the timeout tells of a caller that is forgotten.
func TestReconfiguringUnderLoadLosesNoPermit(t *testing.T) {
	const most = 8
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{FailureRatio: 0.9})
		slots := bulkhead.New(bulkhead.Config{MaxConcurrent: 4, MaxQueue: 100})
		l := ratelimit.New(ratelimit.Config{Rate: 4000, Burst: 4, MaxWait: -1})
		r := retry.New(retry.Config{MaxAttempts: 3, InitialInterval: -1})
		limit := timeout.New(timeout.Config{After: time.Minute})
		var running, tooMany atomic.Int64
		fn := backstay.Wrap(func(ctx context.Context, n int) (int, error) {
			if running.Add(1) > most {
				tooMany.Add(1)
			}
			defer running.Add(-1)
			time.Sleep(time.Millisecond)
			if n%10 == 0 && retry.Attempt(ctx) == 1 {
				return 0, errBroken
			}
			return double(ctx, n)
		}, limit, r, b, l, slots)
		stop := make(chan struct{})
		var changing sync.WaitGroup
		changing.Go(func() {
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				require.NoError(t, b.Reconfigure(breaker.Config{FailureRatio: 0.9, Window: 100 + i%2, Probes: 1 + i%3}))
				require.NoError(t, slots.Reconfigure(bulkhead.Config{MaxConcurrent: 1 + i%most, MaxQueue: 100}))
				require.NoError(t, l.Reconfigure(ratelimit.Config{Rate: 4000 + float64(i%7), Burst: 4 + i%3, MaxWait: -1}))
				require.NoError(t, r.Reconfigure(retry.Config{MaxAttempts: 2 + i%2, InitialInterval: -1}))
				require.NoError(t, limit.Reconfigure(timeout.Config{After: time.Duration(1+i%2) * time.Minute}))
			}
		})
		var callers errgroup.Group
		for caller := range 16 {
			callers.Go(func() error {
				for i := range 500 {
					n := caller + i
					if out, err := fn(t.Context(), n); err != nil || out != 2*n {
						return fmt.Errorf("call %d: %d, %w", n, out, err)
					}
				}
				return nil
			})
		}
		err := callers.Wait()
		close(stop)
		changing.Wait()
		require.NoError(t, err)
		require.Zero(t, tooMany.Load(), "calls that ran beside as many others as ever may")
		require.Zero(t, slots.Stats().Running)
		require.Zero(t, slots.Stats().Waiting)
		require.Zero(t, l.Stats().Waiting)
		require.Equal(t, breaker.Closed, b.State())
		require.EqualValues(t, 800, r.Stats().Retries)
		require.Positive(t, slots.Stats().Queued, "nobody waited: this run shows nothing")
		require.Positive(t, l.Stats().Queued, "nobody waited: this run shows nothing")
	})
}

// TestPanicsAndGoexitReleaseEverythingAndKeepTheirStack has policies that have one of what they can lose, so that a leak shows at
// once.
func TestPanicsAndGoexitReleaseEverythingAndKeepTheirStack(t *testing.T) {
	alone, inChain := breaker.New(breaker.Config{}), breaker.New(breaker.Config{})
	counting := map[string]*breaker.Breaker{"breaker": alone, "chain": inChain}
	for name, policy := range map[string]backstay.Policy{
		"retry":      fixed(2, time.Millisecond),
		"breaker":    alone,
		"bulkhead":   bulkhead.New(bulkhead.Config{MaxConcurrent: 1}),
		"rate limit": ratelimit.New(ratelimit.Config{}),
		"timeout":    timeout.New(timeout.Config{After: time.Hour}),
		"chain": backstay.Chain(timeout.New(timeout.Config{After: time.Hour}), fixed(2, time.Millisecond), inChain,
			ratelimit.New(ratelimit.Config{}), bulkhead.New(bulkhead.Config{MaxConcurrent: 1}), timeout.New(timeout.Config{After: time.Hour})),
	} {
		t.Run(name, func(t *testing.T) {
			callers := t.Context()
			var given context.Context
			released := func() {
				t.Helper()
				require.NotNil(t, given, "it ran")
				require.True(t, given == callers || given.Err() != nil, "the context made for the operation has ended")
				given = nil
			}
			fn := backstay.Wrap(func(ctx context.Context, n int) (int, error) { given = ctx; return deepPanic(ctx, n) }, policy)
			for range 3 {
				value, stack := recovered(func() { _, _ = fn(callers, 1) })
				require.Equal(t, "operation", value)
				require.Contains(t, stack, "deepPanic", "the panic went on up without being recovered on the way")
				released()

				var caller sync.WaitGroup
				caller.Go(func() {
					_ = policy.Do(callers, func(ctx context.Context) error { given = ctx; runtime.Goexit(); return nil })
				})
				caller.Wait()
				released()
			}
			require.NoError(t, policy.Do(callers, succeed), "nothing was lost")
			if b := counting[name]; b != nil {
				require.EqualValues(t, 6, b.Stats().Failures, "each of them is a failure")
			}
		})
	}
}
