package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/sony/gobreaker/v2"

	"github.com/backstay-go/backstay/breaker"
)

// primitives are what everything else is made of: the clock dominates every time window.
func primitives(l *list) {
	var counter atomic.Int64
	var mu sync.Mutex
	base := time.Now()
	fixed := func(name string, fn call) subject { return subject{name, func() call { return fn }} }
	l.both("primitives", work,
		fixed("atomic add", func(context.Context, int) (int, error) { return int(counter.Add(1)), nil }),
		fixed("mutex", func(_ context.Context, n int) (int, error) { mu.Lock(); defer mu.Unlock(); return n, nil }),
		fixed("time.Since", func(context.Context, int) (int, error) { return int(time.Since(base)), nil }),
		fixed("time.Now", func(context.Context, int) (int, error) { return time.Now().Nanosecond(), nil }),
	)
}

const (
	closedCase      = "breaker closed, success"
	failingCase     = "breaker closed, 50 % failing"
	openCase        = "breaker open, rejection"
	window          = 10 * time.Second
	oursTimed       = ours + ", time window"
	failsafeBare    = failsafeName + ", bare"
	failsafeTimed   = failsafeName + ", bare, time window"
	gobreakerRolled = gobreakerName + ", rolling"
)

func breakers(l *list) {
	l.both(closedCase, work, closedBreakers(work)...)
	l.both(failingCase, half, closedBreakers(half)...)
	l.both(openCase, work,
		subject{ours, func() call { return opened(breaker.Config{}) }},
		subject{failsafeBare, failsafeOpen},
		subject{failsafeName + ", executor", failsafeOpenExecutor},
		subject{gobreakerName, func() call { return gobreakerOpen(gobreaker.Settings{}) }},
		subject{gobreakerRolled, func() call { return gobreakerOpen(gobreaker.Settings{Interval: window, BucketPeriod: window / 10}) }},
	)
}

// closedBreakers do not open when half of their calls fail.
func closedBreakers(fn call) []subject {
	count := circuitbreaker.NewBuilder[int]().WithFailureThresholdRatio(90, 100)
	timed := circuitbreaker.NewBuilder[int]().WithFailureRateThreshold(0.9, 1000, window)
	return []subject{
		{ours, func() call { return breaker.Wrap(breaker.New(breaker.Config{FailureRatio: 0.9}), fn) }},
		{oursTimed, func() call {
			return breaker.Wrap(breaker.New(breaker.Config{FailureRatio: 0.9, WindowTime: window}), fn)
		}},
		{failsafeBare, func() call { return failsafeManual(count.Build(), fn) }},
		{failsafeTimed, func() call { return failsafeManual(timed.Build(), fn) }},
		{failsafeName + ", executor", func() call { return failsafeExecutor(fn, count.Build()) }},
		{failsafeName + ", executor, time window", func() call { return failsafeExecutor(fn, timed.Build()) }},
		{gobreakerName, func() call { return gobreakerClosed(gobreaker.Settings{}, fn) }},
		{gobreakerRolled, func() call {
			return gobreakerClosed(gobreaker.Settings{Interval: window, BucketPeriod: window / 10}, fn)
		}},
		{gobreakerName + ", two-step", func() call { return gobreakerTwoStep(fn) }},
	}
}

func opened(cfg breaker.Config) call {
	cfg.ConsecutiveFailures, cfg.OpenDelay = 1, time.Hour
	b := breaker.New(cfg)
	_ = b.Do(context.Background(), func(context.Context) error { return errBroken })
	return breaker.Wrap(b, work)
}

func failsafeManual(b circuitbreaker.CircuitBreaker[int], fn call) call {
	return func(ctx context.Context, n int) (int, error) {
		if !b.TryAcquirePermit() {
			return 0, circuitbreaker.ErrOpen
		}
		out, err := fn(ctx, n)
		if err != nil {
			b.RecordError(err)
		} else {
			b.RecordResult(out)
		}
		return out, err
	}
}

func failsafeOpen() call {
	b := circuitbreaker.NewBuilder[int]().WithDelay(time.Hour).Build()
	b.Open()
	return failsafeManual(b, work)
}

func failsafeOpenExecutor() call {
	b := circuitbreaker.NewBuilder[int]().WithDelay(time.Hour).Build()
	b.Open()
	return failsafeExecutor(work, b)
}

func failsafeExecutor(fn call, policies ...failsafe.Policy[int]) call {
	executor := failsafe.With(policies...)
	return func(ctx context.Context, n int) (int, error) {
		return executor.Get(func() (int, error) { return fn(ctx, n) })
	}
}

func gobreakerClosed(settings gobreaker.Settings, fn call) call {
	settings.ReadyToTrip = func(gobreaker.Counts) bool { return false }
	b := gobreaker.NewCircuitBreaker[int](settings)
	return func(ctx context.Context, n int) (int, error) {
		return b.Execute(func() (int, error) { return fn(ctx, n) })
	}
}

func gobreakerTwoStep(fn call) call {
	b := gobreaker.NewTwoStepCircuitBreaker[int](gobreaker.Settings{ReadyToTrip: func(gobreaker.Counts) bool { return false }})
	return func(ctx context.Context, n int) (int, error) {
		done, err := b.Allow()
		if err != nil {
			return 0, err
		}
		out, err := fn(ctx, n)
		done(err)
		return out, err
	}
}

func gobreakerOpen(settings gobreaker.Settings) call {
	settings.Timeout = time.Hour
	settings.ReadyToTrip = func(gobreaker.Counts) bool { return true }
	b := gobreaker.NewCircuitBreaker[int](settings)
	_, _ = b.Execute(func() (int, error) { return 0, errBroken })
	return func(ctx context.Context, n int) (int, error) {
		return b.Execute(func() (int, error) { return work(ctx, n) })
	}
}
