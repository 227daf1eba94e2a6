package breaker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/breaker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBroken = errors.New("broken")

func fail(context.Context) error    { return errBroken }
func succeed(context.Context) error { return nil }

// open returns a breaker that one failure has opened.
func open(t *testing.T, cfg breaker.Config, opts ...breaker.Option) *breaker.Breaker {
	t.Helper()
	cfg.ConsecutiveFailures = 1
	b := breaker.New(cfg, opts...)
	require.ErrorIs(t, b.Do(t.Context(), fail), errBroken)
	require.Equal(t, breaker.Open, b.State())
	return b
}

func acquire(t *testing.T, b *breaker.Breaker) *breaker.Permit {
	t.Helper()
	p, err := b.Acquire(t.Context())
	require.NoError(t, err)
	return &p
}

func TestItOpensAtTheRatioOnceThereAreEnoughCalls(t *testing.T) {
	b := breaker.New(breaker.Config{Window: 10, MinimumCalls: 4, FailureRatio: 0.5})
	for range 3 {
		_ = b.Do(t.Context(), fail)
	}
	require.Equal(t, breaker.Closed, b.State(), "three calls are not enough")
	_ = b.Do(t.Context(), succeed)
	require.Equal(t, breaker.Open, b.State(), "three of four failed, and a success may complete the minimum")
	require.EqualValues(t, 1, b.Stats().Opened)
}

func TestTheWindowForgets(t *testing.T) {
	b := breaker.New(breaker.Config{Window: 4, MinimumCalls: 4, FailureRatio: 0.75})
	for _, op := range []func(context.Context) error{fail, fail, succeed, succeed, succeed, fail, fail} {
		_ = b.Do(t.Context(), op)
	}
	require.Equal(t, breaker.Closed, b.State(), "never three failures within four calls")
	require.Equal(t, 2, b.Stats().WindowFailures)
	_ = b.Do(t.Context(), fail)
	require.Equal(t, breaker.Open, b.State())
}

func TestConsecutiveFailuresOpenAndASuccessStartsOver(t *testing.T) {
	b := breaker.New(breaker.Config{ConsecutiveFailures: 3, FailureRatio: -1})
	for _, op := range []func(context.Context) error{fail, fail, succeed, fail, fail} {
		_ = b.Do(t.Context(), op)
	}
	require.Equal(t, breaker.Closed, b.State())
	_ = b.Do(t.Context(), fail)
	require.Equal(t, breaker.Open, b.State())
}

func TestWhileOpenNothingRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, breaker.Config{Name: "bank", OpenDelay: 10 * time.Second})
		time.Sleep(4 * time.Second)
		err := b.Do(t.Context(), func(context.Context) error { t.Error("it ran"); return nil })
		require.ErrorIs(t, err, breaker.ErrOpen)
		var rejection *breaker.Error
		require.ErrorAs(t, err, &rejection)
		require.True(t, rejection.Rejected())
		require.Equal(t, 6*time.Second, rejection.RetryAfter())
		require.EqualError(t, err, `breaker "bank" is open: try again in 6s`)
		require.Equal(t, "bank", rejection.Name())
		require.EqualValues(t, 1, b.Stats().Rejected)
		require.Zero(t, testing.AllocsPerRun(100, func() { _ = b.Do(context.Background(), fail) }))
	})
}

func TestHalfOpenIsVisibleWithoutTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, breaker.Config{OpenDelay: time.Second})
		time.Sleep(time.Second)
		require.Equal(t, breaker.HalfOpen, b.State())
	})
}

func TestHalfOpenAdmitsExactlyTheProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, breaker.Config{OpenDelay: time.Second, Probes: 3})
		time.Sleep(time.Second)
		release := make(chan struct{})
		var ran, rejected int
		var mu sync.Mutex
		var group sync.WaitGroup
		for range 30 {
			group.Go(func() {
				err := b.Do(context.Background(), func(context.Context) error {
					mu.Lock()
					ran++
					mu.Unlock()
					<-release
					return nil
				})
				if errors.Is(err, breaker.ErrOpen) {
					mu.Lock()
					rejected++
					mu.Unlock()
				}
			})
		}
		synctest.Wait()
		close(release)
		group.Wait()
		require.Equal(t, 3, ran)
		require.Equal(t, 27, rejected)
		require.Equal(t, breaker.Closed, b.State(), "all probes succeeded")
	})
}

func TestOneFailedProbeOpensAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, breaker.Config{OpenDelay: time.Second, Probes: 2})
		time.Sleep(time.Second)
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Equal(t, breaker.HalfOpen, b.State())
		_ = b.Do(t.Context(), fail)
		require.Equal(t, breaker.Open, b.State())
		require.EqualValues(t, 2, b.Stats().Opened)
	})
}

func TestAnIgnoredProbeIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, breaker.Config{OpenDelay: time.Second, Probes: 1})
		time.Sleep(time.Second)
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			_ = b.Do(ctx, func(ctx context.Context) error { cancel(); return ctx.Err() })
			require.Equal(t, breaker.HalfOpen, b.State())
		}
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestAHungProbeIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, breaker.Config{OpenDelay: time.Second, Probes: 2, ProbeTimeout: 10 * time.Second})
		time.Sleep(time.Second)
		hung := acquire(t, b)
		require.NoError(t, b.Do(t.Context(), succeed))
		time.Sleep(10*time.Second - 1)
		err := b.Do(t.Context(), succeed)
		require.ErrorIs(t, err, breaker.ErrOpen)
		require.EqualError(t, err, `breaker "breaker" is half-open and all its probes are under way`)
		time.Sleep(time.Nanosecond)
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Equal(t, breaker.Closed, b.State(), "the success before it was lost still counts")
		hung.Done(errBroken)
		require.Equal(t, breaker.Closed, b.State(), "the lost probe changes nothing any more")
	})
}

func TestLateResultsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{ConsecutiveFailures: 1, OpenDelay: time.Second, Probes: 1})
		lateFailure, lateSuccess, lateIgnored := acquire(t, b), acquire(t, b), acquire(t, b)
		_ = b.Do(t.Context(), fail)
		lateSuccess.Done(nil)
		require.Equal(t, breaker.Open, b.State(), "a late success does not close")
		time.Sleep(time.Second)
		probe := acquire(t, b)
		lateIgnored.Done(rejection{})
		_, err := b.Acquire(t.Context())
		require.ErrorIs(t, err, breaker.ErrOpen, "a late result frees no probe")
		probe.Done(nil)
		require.Equal(t, breaker.Closed, b.State())
		lateFailure.Done(errBroken)
		require.Equal(t, breaker.Closed, b.State(), "a late failure does not open")
		require.EqualValues(t, 1, b.Stats().Failures)
	})
}

func TestPanicAndGoexitCountAsFailuresAndPassThrough(t *testing.T) {
	b := breaker.New(breaker.Config{ConsecutiveFailures: 2})
	require.PanicsWithValue(t, "boom", func() {
		_ = b.Do(t.Context(), func(context.Context) error { panic("boom") })
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = breaker.Wrap(b, func(context.Context, int) (int, error) { runtime.Goexit(); return 0, nil })(context.Background(), 1)
	}()
	<-done
	require.Equal(t, breaker.Open, b.State())
}

func TestAProbeThatPanicsOpensAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, breaker.Config{OpenDelay: time.Second, MaxOpenDelay: -1, Probes: 1})
		time.Sleep(time.Second)
		require.Panics(t, func() { _ = b.Do(t.Context(), func(context.Context) error { panic("boom") }) })
		require.Equal(t, breaker.Open, b.State())
		time.Sleep(time.Second)
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestOnlyTheFirstOfDoneAndAbortCounts(t *testing.T) {
	b := breaker.New(breaker.Config{})
	p := acquire(t, b)
	p.Done(nil)
	p.Abort()
	p.Done(errBroken)
	require.Equal(t, breaker.Stats{Calls: 1, Successes: 1, WindowCalls: 1}, b.Stats())
	var zero breaker.Permit
	zero.Done(nil)
	zero.Abort()
}

type rejection struct{}

func (rejection) Error() string  { return "rejected" }
func (rejection) Rejected() bool { return true }

func TestClassify(t *testing.T) {
	cancelled, cancel := context.WithCancelCause(t.Context())
	goneAway := errors.New("the browser went away")
	cancel(goneAway)
	expired, stop := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer stop()
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want breaker.Outcome
	}{
		{"nil", t.Context(), nil, breaker.Success},
		{"an error", t.Context(), errBroken, breaker.Failure},
		{"the caller cancelled", cancelled, fmt.Errorf("query: %w", context.Canceled), breaker.Ignored},
		{"the caller cancelled with a cause", cancelled, goneAway, breaker.Ignored},
		{"another error while the caller cancelled", cancelled, errBroken, breaker.Failure},
		{"a cancellation that is not the caller's", t.Context(), context.Canceled, breaker.Failure},
		{"a deadline", expired, context.DeadlineExceeded, breaker.Failure},
		{"a local rejection", t.Context(), rejection{}, breaker.Ignored},
		{"a rejection from deeper down", t.Context(), fmt.Errorf("reading: %w", rejection{}), breaker.Failure},
	} {
		require.Equal(t, c.want, breaker.Classify(c.ctx, c.err), c.name)
	}
}

func TestAClassifierDecides(t *testing.T) {
	notFound := errors.New("not found")
	b := breaker.New(breaker.Config{ConsecutiveFailures: 1}, breaker.WithClassifier(func(ctx context.Context, err error) breaker.Outcome {
		if errors.Is(err, notFound) {
			return breaker.Success
		}
		return breaker.Classify(ctx, err)
	}))
	require.ErrorIs(t, b.Do(t.Context(), func(context.Context) error { return notFound }), notFound)
	require.Equal(t, breaker.Closed, b.State())
	_ = b.Do(t.Context(), fail)
	require.Equal(t, breaker.Open, b.State())
}

func TestTransitionsAreToldInOrderAndTheHookMayUseTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		var b *breaker.Breaker
		hook := func(tr breaker.Transition) {
			seen = append(seen, fmt.Sprint(tr.From, " ", tr.To))
			_ = b.Stats()
			if tr.To == breaker.Closed {
				_ = b.Do(context.Background(), fail) // a transition within the hook is told after this one
				seen = append(seen, "hook returns")
			}
		}
		b = breaker.New(breaker.Config{Name: "x", ConsecutiveFailures: 1, OpenDelay: time.Second, Probes: 1}, breaker.OnStateChange(hook))
		_ = b.Do(t.Context(), fail)
		time.Sleep(time.Second)
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Equal(t, []string{"closed open", "open half-open", "half-open closed", "hook returns", "closed open"}, seen)
	})
}

func TestAPanickingHookLeavesTheBreakerUsable(t *testing.T) {
	told := 0
	b := breaker.New(breaker.Config{ConsecutiveFailures: 1, OpenDelay: 1, Probes: 1}, breaker.OnStateChange(func(breaker.Transition) {
		if told++; told == 1 {
			panic("hook")
		}
	}))
	require.PanicsWithValue(t, "hook", func() { _ = b.Do(t.Context(), fail) })
	require.NoError(t, b.Do(t.Context(), succeed))
	require.Equal(t, 3, told)
}

func TestReconfigureKeepsWhatKeepsItsMeaning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Window: 10, MinimumCalls: 10})
		for range 4 {
			_ = b.Do(t.Context(), fail)
		}
		p := acquire(t, b)
		require.NoError(t, b.Reconfigure(breaker.Config{Window: 10, MinimumCalls: 5, OpenDelay: time.Second}))
		require.Equal(t, 4, b.Stats().WindowFailures, "the window survives")
		p.Done(errBroken)
		require.Equal(t, breaker.Open, b.State(), "a permit from before counts, under the new Config")

		require.NoError(t, b.Reconfigure(breaker.Config{Window: 20, OpenDelay: time.Hour}))
		time.Sleep(time.Second)
		require.Equal(t, breaker.HalfOpen, b.State(), "an opening keeps its delay")
	})
}

func TestReconfigureWithAnotherWindowStartsItEmpty(t *testing.T) {
	b := breaker.New(breaker.Config{Window: 10})
	_ = b.Do(t.Context(), fail)
	require.NoError(t, b.Reconfigure(breaker.Config{Window: 11}))
	require.Equal(t, breaker.Stats{Calls: 1, Failures: 1}, b.Stats())
	require.NoError(t, b.Reconfigure(b.Config()))
	require.Error(t, b.Reconfigure(breaker.Config{Window: -1}))
	require.Equal(t, 11, b.Config().Window, "a refused Config changes nothing")
}

func TestFewerProbesByReconfigureStillRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, breaker.Config{OpenDelay: time.Second, Probes: 3})
		time.Sleep(time.Second)
		_ = b.Do(t.Context(), succeed)
		_ = b.Do(t.Context(), succeed)
		require.NoError(t, b.Reconfigure(breaker.Config{Probes: 1}))
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestManyCallersAndReconfigure(t *testing.T) {
	b := breaker.New(breaker.Config{FailureRatio: 1})
	fn := breaker.Wrap(b, func(_ context.Context, n int) (int, error) {
		if n%2 == 0 {
			return n, errBroken
		}
		return n, nil
	})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 2000 {
				_, _ = fn(context.Background(), i)
			}
		})
	}
	for range 200 {
		require.NoError(t, b.Reconfigure(b.Config()))
		_ = b.Stats()
	}
	group.Wait()
	s := b.Stats()
	require.Equal(t, breaker.Closed, s.State)
	require.EqualValues(t, 8000, s.Calls)
	require.EqualValues(t, 4000, s.Failures)
	require.Equal(t, 100, s.WindowCalls)
}

func TestConfig(t *testing.T) {
	bad := breaker.Config{Name: "bank", Window: -1, FailureRatio: math.NaN(), OpenDelay: -1, Probes: -2}
	err := bad.Validate()
	for _, field := range []string{"Window is -1", "FailureRatio is NaN", "OpenDelay is -1ns", "Probes is -2"} {
		require.ErrorContains(t, err, `breaker "bank": Config.`+field)
	}
	require.ErrorContains(t, breaker.Config{Window: 5, MinimumCalls: 6}.Validate(), "MinimumCalls is 6")
	require.ErrorContains(t, breaker.Config{FailureRatio: -1}.Validate(), "never opens")
	require.NoError(t, breaker.Config{FailureRatio: -1, SlowCall: time.Second}.Validate())
	bad = breaker.Config{Mode: "off", Window: 10, WindowTime: time.Second, SlowCall: 1, SlowRatio: math.NaN(), OpenDelay: time.Minute, MaxOpenDelay: time.Second}
	for _, field := range []string{"Mode is off", "WindowTime is 1s", "SlowCall is 1ns", "SlowRatio is NaN", "MaxOpenDelay is 1s"} {
		require.ErrorContains(t, bad.Validate(), "breaker: Config."+field)
	}
	require.Panics(t, func() { breaker.New(bad) })
	require.Panics(t, func() { breaker.WithClassifier(nil) })
	require.Panics(t, func() { breaker.OnStateChange(nil) })
	require.Panics(t, func() { breaker.Wrap[int, int](nil, nil) })

	var c breaker.Config
	require.NoError(t, json.Unmarshal([]byte(`{"window":10,"failure_ratio":"off","consecutive_failures":5,"open_delay":"1s"}`), &c))
	require.NoError(t, c.Validate())
	require.Equal(t, breaker.Config{Window: 10, FailureRatio: -1, ConsecutiveFailures: 5, OpenDelay: time.Second}, c)
	require.Equal(t, 10, breaker.New(c).Config().MinimumCalls, "the default is no larger than the window")
	require.Error(t, json.Unmarshal([]byte(`{"windows":10}`), &c))
}

func FuzzConfigRoundTripsThroughJSON(f *testing.F) {
	f.Add([]byte(`{"name":"bank","mode":"metrics_only","window_time":"10s","slow_call":"1s","slow_ratio":0.9,"max_open_delay":"off"}`))
	f.Add([]byte(`{"window":10,"failure_ratio":"off","consecutive_failures":5}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c, again breaker.Config
		if json.Unmarshal(data, &c) != nil || c.Validate() != nil {
			return
		}
		b := breaker.New(c) // whatever Validate lets through works
		_ = b.Do(t.Context(), fail)
		_ = b.Stats()
		out, err := json.Marshal(b.Config())
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(out, &again), "%s", out)
		require.Equal(t, b.Config(), again)
		require.NoError(t, b.Reconfigure(again), "the Config with its defaults is valid too")
		require.Equal(t, again, b.Config())
	})
}

func TestSuccessAllocatesNothing(t *testing.T) {
	ctx := context.Background()
	b := breaker.New(breaker.Config{})
	fn := breaker.Wrap(b, func(_ context.Context, n int) (int, error) { return n, nil })
	require.Zero(t, testing.AllocsPerRun(200, func() { _, _ = fn(ctx, 1) }))
	require.Zero(t, testing.AllocsPerRun(200, func() { _ = b.Do(ctx, succeed) }))
}

func TestMetricsTellTheStats(t *testing.T) {
	b := open(t, breaker.Config{Name: "m"})
	got := maps.Collect(b.Metrics())
	require.Equal(t, map[string]float64{
		"state": 1, "successes_total": 0, "failures_total": 1, "slow_total": 0, "ignored_total": 0, "rejected_total": 0,
		"opened_total": 1, "window_calls": 0, "window_failures": 0, "window_slow": 0, "overdue": 0,
	}, got)
	kind, name, config := b.Describe()
	require.Equal(t, []any{"breaker", "m", b.Config()}, []any{kind, name, config})
}
