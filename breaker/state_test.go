package breaker_test

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

	"github.com/backstay-go/backstay/breaker"
)

// retryAfter is how long b says that it stays open.
func retryAfter(t *testing.T, b *breaker.Breaker) time.Duration {
	t.Helper()
	var e *breaker.Error
	require.ErrorAs(t, b.Do(t.Context(), succeed), &e)
	return e.RetryAfter()
}

func TestTheOpenDelayGrowsWithJitter(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			b := open(t, breaker.Config{OpenDelay: 10 * time.Second, MaxOpenDelay: 70 * time.Second, Probes: 1})
			require.Equal(t, 10*time.Second, retryAfter(t, b), "the first opening has exactly OpenDelay")
			for _, bound := range []time.Duration{20, 40, 70, 70} {
				time.Sleep(retryAfter(t, b))
				require.ErrorIs(t, b.Do(t.Context(), fail), errBroken)
				d := retryAfter(t, b)
				require.GreaterOrEqual(t, d, bound*time.Second/2)
				require.LessOrEqual(t, d, bound*time.Second)
				seen[d] = true
			}
		})
	}
	require.Greater(t, len(seen), 40, "the delays are spread")
}

func TestTheOpenDelayStartsOverAfterALongClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, breaker.Config{OpenDelay: 10 * time.Second, Probes: 1})
		time.Sleep(10 * time.Second)
		require.NoError(t, b.Do(t.Context(), succeed))
		time.Sleep(10*time.Second - 1)
		_ = b.Do(t.Context(), fail)
		grown := retryAfter(t, b)
		require.GreaterOrEqual(t, grown, 10*time.Second)
		require.NotEqual(t, 10*time.Second, grown, "closed for less than the delay before: one row")
		time.Sleep(grown)
		require.NoError(t, b.Do(t.Context(), succeed))
		time.Sleep(grown)
		_ = b.Do(t.Context(), fail)
		require.Equal(t, 10*time.Second, retryAfter(t, b), "closed for as long: the first again")
	})
}

func TestTheOpenDelayMayStayTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, breaker.Config{OpenDelay: 10 * time.Second, MaxOpenDelay: -1, Probes: 1})
		for range 5 {
			time.Sleep(10 * time.Second)
			_ = b.Do(t.Context(), fail)
			require.Equal(t, 10*time.Second, retryAfter(t, b))
		}
	})
}

func TestNobodyIsLetInBeforeTheDelayIsOver(t *testing.T) {
	for _, delay := range []time.Duration{1, 2, time.Millisecond, time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			b := open(t, breaker.Config{OpenDelay: delay})
			for range 600 {
				require.ErrorIs(t, b.Do(t.Context(), succeed), breaker.ErrOpen)
			}
			time.Sleep(delay - 1)
			require.ErrorIs(t, b.Do(t.Context(), succeed), breaker.ErrOpen)
			time.Sleep(time.Nanosecond)
			require.NoError(t, b.Do(t.Context(), succeed))
		})
	}
}

func TestTheDelayEndsWithoutItsTimer(t *testing.T) {
	var b *breaker.Breaker
	synctest.Test(t, func(t *testing.T) { // the timer ends with the bubble and never fires
		b = open(t, breaker.Config{OpenDelay: 100 * time.Hour})
		require.ErrorIs(t, b.Do(t.Context(), succeed), breaker.ErrOpen)
	})
	calls := 1
	for b.Do(t.Context(), succeed) != nil { // the clock outside is years ahead
		calls++
		require.Less(t, calls, 300)
	}
	require.Greater(t, calls, 200, "the clock is read seldom")
}

func TestWhoSeesHalfOpenIsLetInThoughTheTimerIsLate(t *testing.T) {
	var b *breaker.Breaker
	synctest.Test(t, func(t *testing.T) { // the timer ends with the bubble and never fires
		b = open(t, breaker.Config{OpenDelay: 100 * time.Hour})
		require.ErrorIs(t, b.Do(t.Context(), succeed), breaker.ErrOpen)
	})
	require.ErrorIs(t, b.Do(t.Context(), succeed), breaker.ErrOpen)
	require.Equal(t, breaker.HalfOpen, b.State())
	require.NoError(t, b.Do(t.Context(), succeed))
}

func TestProbesAreCountedUnderContention(t *testing.T) {
	b := breaker.New(breaker.Config{ConsecutiveFailures: 1, OpenDelay: 1, MaxOpenDelay: -1, Probes: 3})
	for range 6000 {
		_ = b.Do(t.Context(), fail)
		var probes [2][]*breaker.Permit
		var ready atomic.Int32
		var group sync.WaitGroup
		for g := range probes {
			group.Go(func() {
				for ready.Add(1); ready.Load() < 2; {
					runtime.Gosched()
				}
				for range 4 {
					if p, err := b.Acquire(context.Background()); err == nil {
						probes[g] = append(probes[g], &p)
					}
				}
			})
		}
		group.Wait()
		all := slices.Concat(probes[0], probes[1])
		require.Len(t, all, 3)
		for _, p := range all {
			p.Done(nil)
		}
		require.Equal(t, breaker.Closed, b.State())
	}
}

func TestForceOpenRejectsUntilItIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		b := breaker.New(breaker.Config{Name: "bank", Probes: 1}, breaker.OnStateChange(func(tr breaker.Transition) {
			seen = append(seen, fmt.Sprint(tr.From, " ", tr.To))
		}))
		late := acquire(t, b)
		require.NoError(t, b.Reconfigure(breaker.Config{Name: "bank", Mode: "force_open", Probes: 1}))
		time.Sleep(1000 * time.Hour)
		require.Equal(t, breaker.Open, b.State())
		err := b.Do(t.Context(), succeed)
		require.ErrorIs(t, err, breaker.ErrOpen)
		require.EqualError(t, err, `breaker "bank" is forced open`)
		require.Zero(t, retryAfter(t, b), "nobody knows")
		late.Done(nil)
		require.NoError(t, b.Reconfigure(b.Config()))
		require.Equal(t, breaker.Open, b.State())

		require.NoError(t, b.Reconfigure(breaker.Config{Probes: 1}))
		require.Equal(t, breaker.HalfOpen, b.State(), "it finds out how things are")
		_ = b.Do(t.Context(), fail)
		require.Equal(t, 5*time.Second, retryAfter(t, b), "the forced opening was no trip")
		require.Equal(t, []string{"closed open", "open half-open", "half-open open"}, seen)
	})
}

func TestABreakerMayBeginForcedOpen(t *testing.T) {
	b := breaker.New(breaker.Config{Mode: "force_open"})
	require.ErrorIs(t, b.Do(t.Context(), succeed), breaker.ErrOpen)
	require.NoError(t, b.Reconfigure(breaker.Config{Mode: "force_closed"}))
	require.NoError(t, b.Do(t.Context(), succeed))
}

func TestForceClosedLetsEverythingPass(t *testing.T) {
	b := open(t, breaker.Config{OpenDelay: time.Hour})
	cfg := breaker.Config{Mode: "force_closed", ConsecutiveFailures: 1, SlowCall: time.Millisecond}
	require.NoError(t, b.Reconfigure(cfg))
	for range 100 {
		require.ErrorIs(t, b.Do(t.Context(), fail), errBroken)
	}
	s := b.Stats()
	require.Equal(t, breaker.Closed, s.State)
	require.Equal(t, 100, s.WindowFailures, "the window goes on")
	cfg.Mode = "auto"
	require.NoError(t, b.Reconfigure(cfg))
	require.Equal(t, breaker.Open, b.State(), "and is judged again")
	require.EqualValues(t, 101, b.Stats().Failures)
}

func TestMetricsOnlyTellsWhatWouldBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := breaker.Config{Mode: "metrics_only", OpenDelay: time.Second, Probes: 1}
		b := open(t, cfg)
		for range 3 {
			require.ErrorIs(t, b.Do(t.Context(), fail), errBroken, "it runs")
		}
		s := b.Stats()
		require.Equal(t, breaker.Open, s.State)
		require.Equal(t, []int64{1, 3}, []int64{s.Calls, s.Rejected})
		time.Sleep(time.Second)
		probe := acquire(t, b)
		require.NoError(t, b.Do(t.Context(), succeed), "beside the probe")
		require.Equal(t, breaker.HalfOpen, b.State())
		probe.Done(nil)
		require.Equal(t, breaker.Closed, b.State())
		_ = b.Do(t.Context(), fail)
		cfg.Mode = ""
		require.NoError(t, b.Reconfigure(cfg))
		require.ErrorIs(t, b.Do(t.Context(), fail), breaker.ErrOpen, "the state survives, and now it rejects")
	})
}

func TestModesUnderLoadLoseNothing(t *testing.T) {
	b := breaker.New(breaker.Config{FailureRatio: 1, SlowCall: time.Second})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 3000 {
				_ = b.Do(context.Background(), succeed)
			}
		})
	}
	for i := range 400 {
		cfg := breaker.Config{FailureRatio: 1, SlowCall: time.Second, WindowTime: time.Duration(i%3) * time.Minute}
		cfg.Mode = []string{"auto", "force_open", "metrics_only", "force_closed"}[i%4]
		require.NoError(t, b.Reconfigure(cfg))
		_ = b.Stats()
	}
	group.Wait()
	require.NoError(t, b.Reconfigure(breaker.Config{Mode: "force_closed"}))
	require.NoError(t, b.Reconfigure(breaker.Config{}))
	require.NoError(t, b.Do(t.Context(), succeed))
	s := b.Stats()
	require.Equal(t, breaker.Closed, s.State)
	require.Zero(t, s.Overdue)
	require.LessOrEqual(t, s.Calls+s.Rejected, int64(12_001))
}
