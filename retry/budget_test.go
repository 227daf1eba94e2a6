package retry_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/retry"
)

// spend makes calls that fail until budget refuses one, and returns how many retries it paid for.
func spend(t *testing.T, budget *retry.Budget) int {
	t.Helper()
	r := retry.New(retry.Config{MaxAttempts: -1, InitialInterval: -1}, retry.WithBudget(budget))
	err := r.Do(t.Context(), func(context.Context) error { return errBroken })
	require.ErrorIs(t, err, retry.ErrBudget)
	return int(r.Stats().Retries)
}

func succeed(t *testing.T, budget *retry.Budget, times int) {
	t.Helper()
	r := retry.New(retry.Config{}, retry.WithBudget(budget))
	for range times {
		require.NoError(t, r.Do(t.Context(), func(context.Context) error { return nil }))
	}
}

func TestABudgetPaysForItsBurstAndThenForAShareOfWhatSucceeds(t *testing.T) {
	budget := retry.NewBudget(retry.BudgetConfig{Ratio: 0.25, MinPerSecond: -1, Burst: 10})
	require.Equal(t, 10, spend(t, budget))
	require.Zero(t, spend(t, budget))
	succeed(t, budget, 8)
	require.Equal(t, 2, spend(t, budget))
	succeed(t, budget, 1000)
	require.Equal(t, 10, spend(t, budget), "no more than Burst is saved up")
	require.Equal(t, retry.BudgetStats{Spent: 22, Refused: 4}, budget.Stats())
}

func TestACallThatRecoversPaysToo(t *testing.T) {
	budget := retry.NewBudget(retry.BudgetConfig{Ratio: 1, MinPerSecond: -1, Burst: 1})
	fn := retry.Wrap(retry.New(retry.Config{InitialInterval: -1}, retry.WithBudget(budget)),
		func(ctx context.Context, _ int) (int, error) {
			if retry.Attempt(ctx) == 1 {
				return 0, errBroken
			}
			return 1, nil
		})
	for range 100 {
		_, err := fn(t.Context(), 1)
		require.NoError(t, err)
	}
	require.Equal(t, retry.BudgetStats{Balance: 1, Spent: 100}, budget.Stats())
}

func TestABudgetPaysItsMinimumThoughNothingSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := retry.NewBudget(retry.BudgetConfig{MinPerSecond: 2, Burst: 10})
		require.Equal(t, 10, spend(t, budget))
		<-time.After(499 * time.Millisecond)
		require.Zero(t, spend(t, budget))
		<-time.After(time.Millisecond)
		require.Equal(t, 1, spend(t, budget), "fractions are not lost between two looks")
		<-time.After(3 * time.Second)
		require.Equal(t, 6, spend(t, budget))
		<-time.After(24 * 365 * time.Hour)
		require.Equal(t, 10, spend(t, budget))
	})
}

func TestABudgetThatIsSpentEndsTheCallWithBothErrors(t *testing.T) {
	budget := retry.NewBudget(retry.BudgetConfig{Burst: 1, MinPerSecond: -1})
	r := retry.New(retry.Config{Name: "bank", MaxAttempts: 5, InitialInterval: -1}, retry.WithBudget(budget))
	op, calls := failing(9, errBroken)
	err := r.Do(t.Context(), op)
	require.Equal(t, 2, *calls)
	var gaveUp *retry.Error
	require.ErrorAs(t, err, &gaveUp)
	require.Equal(t, retry.Error{Name: "bank", Attempts: 2, Err: errBroken, Stop: retry.ErrBudget}, *gaveUp)
	require.ErrorIs(t, err, retry.ErrExhausted)
	require.EqualError(t, err, `retry "bank": stopped after attempt 2 (retry: the budget is spent): broken`)
}

func TestARetryThatIsNotMadeCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := retry.NewBudget(retry.BudgetConfig{MinPerSecond: -1, Burst: 5})
		r := retry.New(retry.Config{InitialInterval: time.Minute, MaxInterval: time.Minute, Jitter: -1}, retry.WithBudget(budget))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		op, _ := failing(9, errBroken)
		require.ErrorIs(t, r.Do(ctx, op), context.Canceled)

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, r.Do(ctx, op), context.DeadlineExceeded)

		op, _ = failing(9, retry.Permanent(errBroken))
		require.ErrorIs(t, r.Do(t.Context(), op), errBroken)
		require.Equal(t, retry.BudgetStats{Balance: 5}, budget.Stats())
	})
}

func TestRetriersThatShareABudgetStayWithinItTogether(t *testing.T) {
	budget := retry.NewBudget(retry.BudgetConfig{Ratio: 0.5, MinPerSecond: -1, Burst: 50})
	var retries atomic.Int64
	var callers sync.WaitGroup
	for i := range 8 {
		r := retry.New(retry.Config{MaxAttempts: 4, InitialInterval: -1}, retry.WithBudget(budget))
		callers.Go(func() {
			for j := range 500 {
				_ = r.Do(context.Background(), func(context.Context) error {
					if (i+j)%4 == 0 {
						return nil
					}
					return errBroken
				})
				if j%100 == 0 {
					_ = budget.Reconfigure(budget.Config())
				}
			}
			retries.Add(r.Stats().Retries)
		})
	}
	callers.Wait()
	// 1,000 of the 4,000 calls succeed and pay for 500; 3,000 fail and want 9,000.
	require.LessOrEqual(t, retries.Load(), int64(50+500))
	require.GreaterOrEqual(t, retries.Load(), int64(500), "nor is what was paid in lost")
	require.Equal(t, retries.Load(), budget.Stats().Spent)
	require.InDelta(t, 550-float64(retries.Load()), budget.Stats().Balance, 51)
}

func TestReconfigureKeepsWhatIsSavedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := retry.NewBudget(retry.BudgetConfig{MinPerSecond: 1, Burst: 10})
		require.Equal(t, 10, spend(t, budget))
		<-time.After(3 * time.Second)
		require.NoError(t, budget.Reconfigure(retry.BudgetConfig{MinPerSecond: 100, Burst: 10}))
		require.InDelta(t, 3, budget.Stats().Balance, 1e-6, "the past is paid at the old rate")
		require.NoError(t, budget.Reconfigure(budget.Config()))
		require.InDelta(t, 3, budget.Stats().Balance, 1e-6)
		require.NoError(t, budget.Reconfigure(retry.BudgetConfig{Burst: 2}))
		require.Equal(t, 2, spend(t, budget))
		require.Error(t, budget.Reconfigure(retry.BudgetConfig{Burst: -1}))
		require.Equal(t, 2, budget.Config().Burst)
	})
}

func TestBudgetConfig(t *testing.T) {
	bad := retry.BudgetConfig{Name: "bank", Ratio: math.NaN(), MinPerSecond: math.Inf(1), Burst: -1}
	for _, field := range []string{"Ratio is NaN", "MinPerSecond is +Inf", "Burst is -1"} {
		require.ErrorContains(t, bad.Validate(), `retry "bank": Config.`+field)
	}
	require.Panics(t, func() { retry.NewBudget(bad) })
	require.Panics(t, func() { retry.WithBudget(nil) })

	var c retry.BudgetConfig
	require.NoError(t, json.Unmarshal([]byte(`{"name":"bank","ratio":0.1,"min_per_second":"off","burst":5}`), &c))
	require.Equal(t, retry.BudgetConfig{Name: "bank", Ratio: 0.1, MinPerSecond: -1, Burst: 5}, c)
	require.Error(t, json.Unmarshal([]byte(`{"brust":5}`), &c))

	budget := retry.NewBudget(c)
	kind, name, config := budget.Describe()
	require.Equal(t, []any{"retry budget", "bank", budget.Config()}, []any{kind, name, config})
	require.Equal(t, map[string]float64{"balance": 5, "spent_total": 0, "refused_total": 0}, maps.Collect(budget.Metrics()))
}

func TestSuccessWithABudgetAllocatesNothing(t *testing.T) {
	ctx := context.Background()
	r := retry.New(retry.Config{}, retry.WithBudget(retry.NewBudget(retry.BudgetConfig{})))
	fn := retry.Wrap(r, func(_ context.Context, n int) (int, error) { return n, nil })
	require.Zero(t, testing.AllocsPerRun(200, func() { _, _ = fn(ctx, 1) }))
}

func FuzzConfigsRoundTrip(f *testing.F) {
	f.Add([]byte(`{"name":"x","max_attempts":"off","initial_interval":"1ms","jitter":0.5,"multiplier":1.5}`))
	f.Add([]byte(`{"name":"x","ratio":0.25,"min_per_second":"off","burst":3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		roundTrip(t, data, func(c retry.Config) retry.Config { return retry.New(c).Config() })
		roundTrip(t, data, func(c retry.BudgetConfig) retry.BudgetConfig { return retry.NewBudget(c).Config() })
	})
}

// roundTrip checks that a Config read from JSON means the same after it was written and read again.
func roundTrip[C interface{ Validate() error }](t *testing.T, data []byte, inForce func(C) C) {
	var first, second C
	if json.Unmarshal(data, &first) != nil || first.Validate() != nil {
		return
	}
	out, err := json.Marshal(first)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &second), "%s", out)
	require.Equal(t, inForce(first), inForce(second))
}

func TestZeroDelayTouchesNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry.New(retry.Config{MaxAttempts: 1000, InitialInterval: -1})
		start := time.Now()
		op, calls := failing(999, errBroken)
		require.NoError(t, r.Do(t.Context(), op))
		require.Equal(t, 1000, *calls)
		require.Zero(t, time.Since(start))
	})
	ctx, calls := context.Background(), 0
	fn := retry.Wrap(retry.New(retry.Config{InitialInterval: -1}), func(context.Context, int) (int, error) {
		if calls++; calls%3 != 0 {
			return 0, errBroken
		}
		return 1, nil
	})
	// A timer and its channel would be three allocations more for each of the two retries.
	require.LessOrEqual(t, testing.AllocsPerRun(200, func() { _, _ = fn(ctx, 1) }), 1.0)
}

func TestEachAttemptKeepsItsOwnNumber(t *testing.T) {
	r := retry.New(retry.Config{MaxAttempts: 6, InitialInterval: -1})
	var kept []context.Context
	type key struct{}
	_ = r.Do(context.WithValue(t.Context(), key{}, "caller's"), func(ctx context.Context) error {
		kept = append(kept, ctx)
		return errors.New("503")
	})
	for i, ctx := range kept {
		require.Equal(t, i+1, retry.Attempt(ctx), "a goroutine that an attempt left behind may ask later")
		require.Equal(t, "caller's", ctx.Value(key{}))
	}
}
