package breaker_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/breaker"
)

// last is a call that takes d and returns err.
func last(d time.Duration, err error) func(context.Context) error {
	return func(context.Context) error {
		time.Sleep(d)
		return err
	}
}

func TestATimeWindowJudgesTheCallsOfItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{WindowTime: 10 * time.Second, MinimumCalls: 6, FailureRatio: 1})
		for range 5 {
			_ = b.Do(t.Context(), last(time.Second, errBroken))
		}
		time.Sleep(4500 * time.Millisecond) // the first is 8.5 s old
		require.Equal(t, 5, b.Stats().WindowFailures)
		_ = b.Do(t.Context(), fail)
		require.Equal(t, breaker.Open, b.State(), "six failures within ten seconds, wherever they begin")
		require.EqualValues(t, 6, b.Stats().Failures)
	})
}

func TestATimeWindowForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{WindowTime: 10 * time.Second, MinimumCalls: 6, FailureRatio: 1})
		for range 5 {
			_ = b.Do(t.Context(), fail)
		}
		time.Sleep(10 * time.Second)
		require.Zero(t, b.Stats().WindowCalls, "without any traffic")
		_ = b.Do(t.Context(), fail)
		require.Equal(t, breaker.Closed, b.State())
		time.Sleep(24 * time.Hour)
		_ = b.Do(t.Context(), succeed)
		s := b.Stats()
		require.Equal(t, []int{1, 0}, []int{s.WindowCalls, s.WindowFailures})
		require.Equal(t, []int64{7, 6, 1}, []int64{s.Calls, s.Failures, s.Successes}, "the totals do not forget")
	})
}

func TestASuccessMayCompleteTheMinimumOfATimeWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{WindowTime: 10 * time.Second, MinimumCalls: 4, FailureRatio: 0.5})
		for range 2 {
			_ = b.Do(t.Context(), last(time.Second, errBroken))
		}
		_ = b.Do(t.Context(), last(time.Second, nil))
		require.Equal(t, breaker.Closed, b.State())
		_ = b.Do(t.Context(), succeed)
		require.Equal(t, breaker.Open, b.State())
	})
}

func TestATimeWindowIsJudgedWhenSuccessesLeaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{WindowTime: 10 * time.Second, MinimumCalls: 2, FailureRatio: 0.5})
		for range 8 {
			_ = b.Do(t.Context(), succeed)
		}
		time.Sleep(5 * time.Second)
		for range 4 {
			_ = b.Do(t.Context(), fail)
		}
		require.Equal(t, breaker.Closed, b.State(), "four of twelve")
		time.Sleep(5 * time.Second)
		_ = b.Do(t.Context(), succeed)
		require.Equal(t, breaker.Open, b.State(), "four of five")
	})
}

func TestFailuresSlowerThanTheWindowCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{WindowTime: time.Second, MinimumCalls: 10, FailureRatio: 0.5})
		var group sync.WaitGroup
		for range 10 {
			group.Go(func() { _ = b.Do(context.Background(), last(30*time.Second, errBroken)) })
		}
		group.Wait()
		require.Equal(t, breaker.Open, b.State())
	})
}

func TestATimeWindowCountsEveryCallOfManyCallers(t *testing.T) {
	b := breaker.New(breaker.Config{WindowTime: time.Millisecond, FailureRatio: -1, ConsecutiveFailures: 1 << 40})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 5000 {
				_ = b.Do(context.Background(), []func(context.Context) error{fail, succeed}[i%2])
			}
		})
	}
	group.Wait()
	s := b.Stats()
	require.EqualValues(t, 20_000, s.Calls)
	require.EqualValues(t, 10_000, s.Failures)
	require.LessOrEqual(t, s.WindowFailures, s.WindowCalls)
}

func TestSlowCallsOpen(t *testing.T) {
	for name, cfg := range map[string]breaker.Config{
		"calls": {Window: 8},
		"time":  {WindowTime: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg.SlowCall, cfg.SlowRatio, cfg.MinimumCalls = time.Second, 0.5, 4
				b := breaker.New(cfg)
				for _, d := range []time.Duration{0, time.Second - 1, time.Second} {
					_ = b.Do(t.Context(), last(d, nil))
				}
				require.Equal(t, breaker.Closed, b.State())
				require.Equal(t, 1, b.Stats().WindowSlow)
				_ = b.Do(t.Context(), last(2*time.Second, nil))
				require.Equal(t, breaker.Open, b.State(), "two of four were slow, though all succeeded")
				require.EqualValues(t, 2, b.Stats().Slow)
				require.Zero(t, b.Stats().Failures)
			})
		})
	}
}

func TestASlowCallBeyondTheMinimumIsJudged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowCall: time.Second, SlowRatio: 0.5, MinimumCalls: 2})
		for _, d := range []time.Duration{0, 0, time.Second} {
			_ = b.Do(t.Context(), last(d, nil))
		}
		require.Equal(t, breaker.Closed, b.State())
		_ = b.Do(t.Context(), last(time.Second, nil))
		require.Equal(t, breaker.Open, b.State())
	})
}

func TestAnotherSlowCallStartsTheWindowEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowCall: time.Second})
		_ = b.Do(t.Context(), last(time.Second, nil))
		late := acquire(t, b)
		require.NoError(t, b.Reconfigure(breaker.Config{SlowCall: 2 * time.Second}))
		time.Sleep(2 * time.Second)
		late.Done(nil)
		require.Equal(t, breaker.Stats{Calls: 1, Successes: 1, Slow: 1}, b.Stats())
		for _, cfg := range []breaker.Config{{}, {WindowTime: time.Second}, {SlowCall: time.Minute}} {
			p := acquire(t, b)
			require.NoError(t, b.Reconfigure(cfg), "slow calls are judged, and then not, with calls under way")
			p.Done(nil)
			require.NoError(t, b.Do(t.Context(), succeed))
		}
	})
}

func TestSlowCallsUnderWayOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowCall: 16 * time.Second, SlowRatio: 0.5, MinimumCalls: 6})
		var group sync.WaitGroup
		release := make(chan struct{})
		for range 3 {
			group.Go(func() { _ = b.Do(context.Background(), func(context.Context) error { <-release; return nil }) })
		}
		synctest.Wait()
		for range 3 {
			_ = b.Do(t.Context(), succeed)
		}
		time.Sleep(16 * time.Second)
		require.Equal(t, breaker.Closed, b.State(), "none took longer than SlowCall yet")
		time.Sleep(time.Second)
		require.Equal(t, 3, b.Stats().Overdue)
		require.Equal(t, breaker.Open, b.State(), "readers see it without traffic")
		require.ErrorIs(t, b.Do(t.Context(), succeed), breaker.ErrOpen, "and so does the next call")
		close(release)
		group.Wait()
		require.EqualValues(t, 3, b.Stats().Calls, "those that were late end in a generation that is over")
	})
}

func TestCallsUnderWayAreForgottenWhenTheyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{WindowTime: time.Second, SlowCall: time.Second, MinimumCalls: 1 << 30})
		var group sync.WaitGroup
		for i := range 200 {
			group.Go(func() {
				time.Sleep(time.Duration(i) * 37 * time.Millisecond)
				_ = b.Do(context.Background(), last(time.Duration(i%7)*time.Second, []error{nil, errBroken, rejection{}}[i%3]))
			})
		}
		time.Sleep(7 * time.Second)
		require.Positive(t, b.Stats().Overdue)
		group.Wait()
		require.Zero(t, b.Stats().Overdue)
	})
}

func TestOverdueCallsAreCountedUnderLoad(t *testing.T) {
	b := breaker.New(breaker.Config{SlowCall: time.Millisecond, SlowRatio: -1})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 20_000 {
				_ = b.Do(context.Background(), succeed)
			}
		})
	}
	group.Wait()
	require.Zero(t, b.Stats().Overdue)
	require.EqualValues(t, 80_000, b.Stats().Calls)
}

func TestASlowProbeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, breaker.Config{OpenDelay: time.Second, Probes: 2, SlowCall: time.Second})
		time.Sleep(time.Second)
		_ = b.Do(t.Context(), succeed)
		_ = b.Do(t.Context(), last(time.Second, nil))
		require.Equal(t, breaker.Open, b.State())
		require.EqualValues(t, 2, b.Stats().Opened)
	})
}

func TestSlowAndTimedCallsAllocateNothing(t *testing.T) {
	b := breaker.New(breaker.Config{WindowTime: time.Second, SlowCall: time.Second})
	require.Zero(t, testing.AllocsPerRun(1000, func() { _ = b.Do(context.Background(), succeed) }))
}
