package backstay_test

import (
	"context"
	"runtime/debug"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/timeout"
)

func TestT19_APanicFreesTheBulkheadsSlot(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	for range 3 {
		require.PanicsWithValue(t, "operation", func() {
			_ = b.Do(t.Context(), func(context.Context) error { panic("operation") })
		})
		require.Zero(t, b.Stats().Running)
	}
	require.NoError(t, b.Do(t.Context(), succeed))
}

func TestT20_ACancelledContextIsNeverAdmitted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	neverRuns := func(context.Context) error { t.Error("it ran"); return nil }
	for name, policy := range map[string]backstay.Policy{
		"bulkhead":            bulkhead.New(bulkhead.Config{MaxConcurrent: 1}),
		"bulkhead with queue": bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 10}),
		"rate limit":          ratelimit.New(ratelimit.Config{Rate: 1e6, MaxWait: -1}),
	} {
		for range 1000 {
			require.ErrorIs(t, policy.Do(ctx, neverRuns), context.Canceled, name)
		}
	}
}

func TestT21_AbandonedRateWaitersReturnTheirReservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 5, Burst: 1, MaxWait: -1})
		require.NoError(t, l.Wait(t.Context()))
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		var waiters sync.WaitGroup
		for range 10 {
			waiters.Go(func() { require.ErrorIs(t, l.Wait(ctx), context.Canceled) })
		}
		synctest.Wait()
		cancel()
		waiters.Wait()
		require.NoError(t, l.Wait(t.Context()))
		require.Equal(t, 200*time.Millisecond, time.Since(start), "as if nobody had waited")
	})
}

// deepPanic is what the stack must still show when the caller recovers.
//
//go:noinline
func deepPanic(context.Context, int) (int, error) { panic("operation") }

func TestT22_APanicOfTheOperationReachesTheCaller(t *testing.T) {
	limit := timeout.New(timeout.Config{After: time.Minute})
	for name, fn := range map[string]backstay.Func[int, int]{
		"timeout": timeout.Wrap(limit, deepPanic),
		"abandon": timeout.Abandon(limit, deepPanic),
		"hedge":   hedge.Wrap(hedge.New(hedge.Config{After: time.Minute}), deepPanic, nil),
	} {
		value, stack := recovered(func() { _, _ = fn(t.Context(), 1) })
		require.NotNil(t, value, name)
		if p, ok := value.(error); ok {
			stack = p.Error() // it comes from another goroutine and brings its stack along
			require.Contains(t, stack, "operation", name)
		} else {
			require.Equal(t, "operation", value, name)
		}
		require.Contains(t, stack, "deepPanic", name)
	}
}

// recovered runs f and returns what it panicked with, and the stack as it was before anything was unwound.
func recovered(f func()) (value any, stack string) {
	defer func() {
		value = recover()
		stack = string(debug.Stack())
	}()
	f()
	return nil, ""
}

func TestT23_AnOperationThatIgnoresItsContextCanBeGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := timeout.New(timeout.Config{After: 30 * time.Millisecond})
		deaf := func(context.Context, int) (int, error) { time.Sleep(250 * time.Millisecond); return 1, nil }
		start := time.Now()
		_, err := timeout.Abandon(limit, deaf)(t.Context(), 1)
		require.Equal(t, 30*time.Millisecond, time.Since(start))
		require.ErrorIs(t, err, timeout.ErrTimeout)
		require.EqualValues(t, 1, limit.Stats().Abandoned)
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		require.Zero(t, limit.Stats().Abandoned, "it has come to its end, and nothing is left")
	})
}
