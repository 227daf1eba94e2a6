package backstay_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
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

func TestReconfiguringUnderLoadLosesNoPermit(t *testing.T) {
	b := breaker.New(breaker.Config{})
	slots := bulkhead.New(bulkhead.Config{MaxConcurrent: 4, MaxQueue: 100})
	l := ratelimit.New(ratelimit.Config{Rate: 1e6, Burst: 1e6, MaxWait: -1})
	r, limit := fixed(3, time.Microsecond), timeout.New(timeout.Config{After: time.Minute})
	fn := backstay.Wrap(double, limit, r, b, l, slots)
	stop := make(chan struct{})
	var changing sync.WaitGroup
	changing.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			require.NoError(t, b.Reconfigure(breaker.Config{Window: 100 + i%2, Probes: 1 + i%3}))
			require.NoError(t, slots.Reconfigure(bulkhead.Config{MaxConcurrent: 1 + i%8, MaxQueue: 100}))
			require.NoError(t, l.Reconfigure(ratelimit.Config{Rate: 1e6 + float64(i%7), Burst: 1e6, MaxWait: -1}))
			require.NoError(t, r.Reconfigure(retry.Config{MaxAttempts: 1 + i%3}))
			require.NoError(t, limit.Reconfigure(timeout.Config{After: time.Duration(1+i%2) * time.Minute}))
		}
	})
	var callers errgroup.Group
	for range 16 {
		callers.Go(func() error {
			for i := range 2000 {
				if out, err := fn(t.Context(), i); err != nil || out != 2*i {
					return fmt.Errorf("call %d: %d, %w", i, out, err)
				}
			}
			return nil
		})
	}
	require.NoError(t, callers.Wait())
	close(stop)
	changing.Wait()
	require.Zero(t, slots.Stats().Running)
	require.Zero(t, slots.Stats().Waiting)
	require.Equal(t, breaker.Closed, b.State())
}

// smallest are policies that have one of what they can lose, so that a leak shows at once.
func smallest() map[string]backstay.Policy {
	return map[string]backstay.Policy{
		"retry":      fixed(2, time.Millisecond),
		"breaker":    breaker.New(breaker.Config{}),
		"bulkhead":   bulkhead.New(bulkhead.Config{MaxConcurrent: 1}),
		"rate limit": ratelimit.New(ratelimit.Config{}),
		"timeout":    timeout.New(timeout.Config{}),
		"chain": backstay.Chain(timeout.New(timeout.Config{}), fixed(2, time.Millisecond), breaker.New(breaker.Config{}),
			ratelimit.New(ratelimit.Config{}), bulkhead.New(bulkhead.Config{MaxConcurrent: 1}), timeout.New(timeout.Config{})),
	}
}

func TestPanicsAndGoexitReleaseEverythingAndKeepTheirStack(t *testing.T) {
	for name, policy := range smallest() {
		t.Run(name, func(t *testing.T) {
			fn := backstay.Wrap(deepPanic, policy)
			for range 3 {
				value, stack := recovered(func() { _, _ = fn(t.Context(), 1) })
				require.Equal(t, "operation", value)
				require.Contains(t, stack, "deepPanic", "the panic went on up without being recovered on the way")

				var caller sync.WaitGroup
				caller.Go(func() {
					_ = policy.Do(context.Background(), func(context.Context) error { runtime.Goexit(); return nil })
				})
				caller.Wait()
			}
			require.NoError(t, policy.Do(t.Context(), succeed), "nothing was lost")
		})
	}
}
