package retry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/backstay-go/backstay/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBroken = errors.New("broken")

// failing returns an operation that fails the first n times with err, and counts its calls.
func failing(n int, err error) (op func(context.Context) error, calls *int) {
	calls = new(int)
	return func(context.Context) error {
		if *calls++; *calls <= n {
			return err
		}
		return nil
	}, calls
}

func TestItRepeatsUntilSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry.New(retry.Config{MaxAttempts: 5, InitialInterval: time.Second, Jitter: -1})
		op, calls := failing(3, errBroken)
		start := time.Now()
		require.NoError(t, r.Do(t.Context(), op))
		require.Equal(t, 4, *calls)
		require.Equal(t, (1+2+4)*time.Second, time.Since(start))
		require.Equal(t, retry.Stats{Calls: 1, Retries: 3, Recovered: 1}, r.Stats())
	})
}

func TestAttemptsAreBoundedAndTheLastCauseIsKept(t *testing.T) {
	r := retry.New(retry.Config{Name: "bank", MaxAttempts: 3, InitialInterval: -1})
	calls := 0
	err := r.Do(t.Context(), func(context.Context) error { calls++; return fmt.Errorf("cause %d", calls) })
	require.Equal(t, 3, calls)
	require.ErrorIs(t, err, retry.ErrExhausted)
	var gaveUp *retry.Error
	require.ErrorAs(t, err, &gaveUp)
	require.Equal(t, 3, gaveUp.Attempts)
	require.EqualError(t, gaveUp.Err, "cause 3")
	require.NoError(t, gaveUp.Stop)
	require.EqualError(t, err, `retry "bank": gave up after attempt 3: cause 3`)
}

func TestNoSleepAfterTheLastAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry.New(retry.Config{MaxAttempts: 2, InitialInterval: time.Hour, MaxInterval: time.Hour, Jitter: -1})
		op, _ := failing(9, errBroken)
		start := time.Now()
		require.Error(t, r.Do(t.Context(), op))
		require.Equal(t, time.Hour, time.Since(start))
	})
}

func TestFullJitterStaysBelowTheGrowingBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var delays []time.Duration
		r := retry.New(retry.Config{MaxAttempts: 6, InitialInterval: time.Second, MaxInterval: 4 * time.Second},
			retry.OnRetry(func(e retry.Event) { delays = append(delays, e.Delay) }))
		differ := false
		for range 50 {
			delays = delays[:0]
			op, _ := failing(9, errBroken)
			require.Error(t, r.Do(t.Context(), op))
			require.Len(t, delays, 5)
			for i, bound := range []time.Duration{1, 2, 4, 4, 4} {
				require.GreaterOrEqual(t, delays[i], time.Duration(0))
				require.LessOrEqual(t, delays[i], bound*time.Second)
				differ = differ || delays[i] < bound*time.Second/2
			}
		}
		require.True(t, differ, "250 random delays, none below half of its bound")
	})
}

func TestItGivesUpAtOnceWhenTheDelayWouldPassTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := retry.New(retry.Config{InitialInterval: 2 * time.Second, Jitter: -1})
		op, calls := failing(9, errBroken)
		start := time.Now()
		err := r.Do(ctx, op)
		require.Zero(t, time.Since(start))
		require.Equal(t, 1, *calls)
		require.ErrorIs(t, err, errBroken)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, retry.ErrExhausted)
	})
}

func TestCancellationEndsTheSleepAndKeepsTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		r := retry.New(retry.Config{InitialInterval: time.Minute, MaxInterval: time.Minute, Jitter: -1})
		op, calls := failing(9, errBroken)
		start := time.Now()
		err := r.Do(ctx, op)
		require.Equal(t, time.Second, time.Since(start))
		require.Equal(t, 1, *calls)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errBroken)
	})
}

func TestADoneContextMeansNoAttempt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := retry.New(retry.Config{})
	op, calls := failing(0, nil)
	require.ErrorIs(t, r.Do(ctx, op), context.Canceled)
	_, err := retry.Wrap(r, func(ctx context.Context, _ int) (int, error) { return 1, op(ctx) })(ctx, 1)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, *calls)
}

func TestNothingIsRepeatedOnceTheContextIsDone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := retry.New(retry.Config{InitialInterval: -1})
	calls := 0
	err := r.Do(ctx, func(context.Context) error { calls++; cancel(); return errBroken })
	require.ErrorIs(t, err, errBroken)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1, calls)
}

func TestTheCallersCancellationIsNotRepeated(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := retry.New(retry.Config{InitialInterval: -1})
	calls := 0
	err := r.Do(ctx, func(ctx context.Context) error { calls++; cancel(); return ctx.Err() })
	require.Equal(t, context.Canceled, err)
	require.Equal(t, 1, calls)
}

type rejection struct{}

func (rejection) Error() string  { return "rejected" }
func (rejection) Rejected() bool { return true }

func TestALocalRejectionIsNotRepeated(t *testing.T) {
	r := retry.New(retry.Config{InitialInterval: -1})
	op, calls := failing(9, rejection{})
	require.Equal(t, rejection{}, r.Do(t.Context(), op), "as it is: nothing ran")
	require.Equal(t, 1, *calls)
}

func TestARejectionOfALaterAttemptComesWithTheCauseOfTheEarlier(t *testing.T) {
	r := retry.New(retry.Config{InitialInterval: -1})
	calls := 0
	err := r.Do(t.Context(), func(context.Context) error {
		if calls++; calls == 1 {
			return errBroken
		}
		return rejection{}
	})
	var gaveUp *retry.Error
	require.ErrorAs(t, err, &gaveUp)
	require.Equal(t, 1, gaveUp.Attempts)
	require.Equal(t, errBroken, gaveUp.Err)
	require.Equal(t, rejection{}, gaveUp.Stop)
	require.False(t, gaveUp.Rejected(), "one attempt ran")
	require.Equal(t, 2, calls)
}

func TestRejectionsAreRepeatedWhenAskedFor(t *testing.T) {
	r := retry.New(retry.Config{InitialInterval: -1}, retry.WithRetryable(func(error) bool { return true }))
	op, calls := failing(9, rejection{})
	err := r.Do(t.Context(), op)
	var gaveUp *retry.Error
	require.ErrorAs(t, err, &gaveUp)
	require.True(t, gaveUp.Rejected(), "nothing ever ran")
	require.Equal(t, 3, *calls)
}

func TestAPermanentErrorIsNotRepeated(t *testing.T) {
	r := retry.New(retry.Config{InitialInterval: -1})
	op, calls := failing(9, retry.Permanent(errBroken))
	err := r.Do(t.Context(), op)
	require.ErrorIs(t, err, errBroken)
	require.NotErrorIs(t, err, retry.ErrExhausted)
	require.Equal(t, 1, *calls)

	op, calls = failing(9, backoff.Permanent(errBroken))
	require.ErrorIs(t, r.Do(t.Context(), op), errBroken)
	require.Equal(t, 1, *calls)
	require.NoError(t, retry.Permanent(nil))
}

type busy time.Duration

func (b busy) Error() string             { return "busy" }
func (b busy) RetryAfter() time.Duration { return time.Duration(b) }

func TestRetryAfterIsHonouredUpToItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry.New(retry.Config{MaxAttempts: 2, InitialInterval: time.Millisecond, MaxRetryAfter: time.Minute})
		op, calls := failing(1, busy(time.Minute))
		start := time.Now()
		require.NoError(t, r.Do(t.Context(), op))
		require.Equal(t, time.Minute, time.Since(start))
		require.Equal(t, 2, *calls)

		op, calls = failing(1, busy(time.Minute+1))
		require.ErrorIs(t, r.Do(t.Context(), op), retry.ErrExhausted)
		require.Equal(t, time.Minute, time.Since(start), "no further sleep")
		require.Equal(t, 1, *calls)
	})
}

func TestABackOffIsMadeForEachCallThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := 0
		r := retry.New(retry.Config{MaxAttempts: -1}, retry.WithBackOff(func() backoff.BackOff {
			made++
			return backoff.WithMaxRetries(backoff.NewConstantBackOff(time.Second), 2)
		}))
		succeed, _ := failing(0, nil)
		require.NoError(t, r.Do(t.Context(), succeed))
		require.Zero(t, made, "no failure, no backoff")
		for range 2 {
			op, calls := failing(9, errBroken)
			start := time.Now()
			require.ErrorIs(t, r.Do(t.Context(), op), retry.ErrExhausted)
			require.Equal(t, 3, *calls, "backoff.Stop ends the attempts")
			require.Equal(t, 2*time.Second, time.Since(start))
		}
		require.Equal(t, 2, made)
	})
}

func TestOneRetrierServesManyCallers(t *testing.T) {
	r := retry.New(retry.Config{MaxAttempts: 4, InitialInterval: -1})
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			op, calls := failing(9, errBroken)
			if err := r.Do(context.Background(), op); !errors.Is(err, retry.ErrExhausted) || *calls != 4 {
				return fmt.Errorf("%d attempts, error %w", *calls, err)
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	require.Equal(t, retry.Stats{Calls: 8, Retries: 24, GaveUp: 8}, r.Stats())
}

func TestAttemptIsInTheContext(t *testing.T) {
	type key struct{}
	r := retry.New(retry.Config{MaxAttempts: 5, InitialInterval: -1})
	var kept []context.Context
	_ = r.Do(context.WithValue(t.Context(), key{}, "caller's"), func(ctx context.Context) error {
		kept = append(kept, ctx)
		return errBroken
	})
	require.Len(t, kept, 5)
	for i, ctx := range kept {
		require.Equal(t, i+1, retry.Attempt(ctx), "also after later attempts")
		require.Equal(t, "caller's", ctx.Value(key{}))
	}
	require.Equal(t, 1, retry.Attempt(t.Context()))
}

func TestAHookThatCancelsEndsTheAttempts(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	budget := retry.NewBudget(retry.BudgetConfig{MinPerSecond: -1, Burst: 5})
	r := retry.New(retry.Config{InitialInterval: -1}, retry.WithBudget(budget), retry.OnRetry(func(retry.Event) { cancel() }))
	op, calls := failing(9, errBroken)
	err := r.Do(ctx, op)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, errBroken)
	require.Equal(t, 1, *calls)
	require.Equal(t, retry.BudgetStats{Balance: 5}, budget.Stats(), "the attempt was not made")
}

func TestHooksMayUseTheRetrier(t *testing.T) {
	var r *retry.Retrier
	var events []retry.Event
	hook := func(e retry.Event) {
		events = append(events, e)
		_ = r.Stats()
		_ = r.Reconfigure(r.Config())
	}
	r = retry.New(retry.Config{Name: "x", MaxAttempts: 2, InitialInterval: -1}, retry.OnRetry(hook), retry.OnGiveUp(hook))
	op, _ := failing(9, errBroken)
	err := r.Do(t.Context(), op)
	require.Equal(t, []retry.Event{{Name: "x", Attempt: 1, Err: errBroken}, {Name: "x", Attempt: 2, Err: err}}, events)
}

func TestReconfigure(t *testing.T) {
	r := retry.New(retry.Config{InitialInterval: -1})
	before := r.Config()
	require.NoError(t, r.Reconfigure(r.Config()))
	require.Equal(t, before, r.Config())
	require.NoError(t, r.Reconfigure(retry.Config{MaxAttempts: 1}))
	op, calls := failing(9, errBroken)
	require.Error(t, r.Do(t.Context(), op))
	require.Equal(t, 1, *calls)
	require.Error(t, r.Reconfigure(retry.Config{Jitter: 2}))
	require.Equal(t, 1, r.Config().MaxAttempts, "a refused Config changes nothing")
}

func TestConfig(t *testing.T) {
	bad := retry.Config{Name: "bank", Multiplier: 0.5, Jitter: math.NaN(), MaxInterval: -1}
	err := bad.Validate()
	for _, field := range []string{"Multiplier is 0.5", "Jitter is NaN", "MaxInterval is -1"} {
		require.ErrorContains(t, err, `retry "bank": Config.`+field)
	}
	require.ErrorContains(t, retry.Config{InitialInterval: time.Minute, MaxInterval: time.Second}.Validate(), "InitialInterval")
	require.Panics(t, func() { retry.New(bad) })

	var c retry.Config
	require.NoError(t, json.Unmarshal([]byte(`{"name":"bank","max_attempts":"off","initial_interval":"20ms"}`), &c))
	require.Equal(t, retry.Config{Name: "bank", MaxAttempts: -1, InitialInterval: 20 * time.Millisecond}, c)
	require.Equal(t, retry.New(c).Config(), retry.New(retry.Config{Name: "bank", MaxAttempts: -7, InitialInterval: 20 * time.Millisecond}).Config())
	require.Error(t, json.Unmarshal([]byte(`{"max_attempt":3}`), &c))
}

func TestNilFunctionsAreRefused(t *testing.T) {
	require.Panics(t, func() { retry.WithBackOff(nil) })
	require.Panics(t, func() { retry.WithRetryable(nil) })
	require.Panics(t, func() { retry.OnRetry(nil) })
	require.Panics(t, func() { retry.OnGiveUp(nil) })
	require.Panics(t, func() { retry.Wrap[int, int](retry.New(retry.Config{}), nil) })
}

func TestSuccessAtOnceAllocatesNothing(t *testing.T) {
	ctx := context.Background()
	fn := retry.Wrap(retry.New(retry.Config{}), func(_ context.Context, n int) (int, error) { return n, nil })
	require.Zero(t, testing.AllocsPerRun(200, func() { _, _ = fn(ctx, 1) }))
}

func TestMetricsTellTheStats(t *testing.T) {
	r := retry.New(retry.Config{Name: "m", MaxAttempts: 2, InitialInterval: -1})
	op, _ := failing(9, errBroken)
	_ = r.Do(t.Context(), op)
	got := maps.Collect(r.Metrics())
	require.Equal(t, map[string]float64{"calls_total": 1, "retries_total": 1, "recovered_total": 0, "gave_up_total": 1}, got)
	kind, name, config := r.Describe()
	require.Equal(t, []any{"retry", "m", r.Config()}, []any{kind, name, config})
}
