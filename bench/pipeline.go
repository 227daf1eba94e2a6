package bench

import (
	"context"
	"time"

	"github.com/failsafe-go/failsafe-go"
	failsafebulkhead "github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	failsafefallback "github.com/failsafe-go/failsafe-go/fallback"
	"github.com/failsafe-go/failsafe-go/hedgepolicy"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	failsafetimeout "github.com/failsafe-go/failsafe-go/timeout"
	"golang.org/x/sync/semaphore"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/fallback"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

const (
	fourCase     = "fallback, retry, breaker and bulkhead"
	oneTimeCase  = "the same with one timeout"
	twoTimesCase = "the same with total and attempt timeouts"
	timeoutCase  = "timeout"
	neverWaits   = ", the operation never waits"
)

func pipelines(l *list) {
	l.both(fourCase, work,
		subject{ours, func() call { return withFallback(work, backstayPolicies()...) }},
		subject{failsafeName, func() call { return failsafeExecutor(work, failsafePolicies()...) }},
		subject{failsafeName + ", no policies", func() call { return failsafeExecutor(work) }},
	)
	// An operation that somebody bounds in time is one that waits for the end of its context; one that never looks at it is
	// shown apart, since a context can be cheaper there.
	withTimeouts(l, "", waits)
	withTimeouts(l, neverWaits, work)
}

func withTimeouts(l *list, suffix string, fn call) {
	l.both(oneTimeCase+suffix, fn,
		subject{contextName, func() call { return withTimeout(fn) }},
		subject{"semaphore and context.WithTimeout", func() call { return byHand(fn) }},
		subject{ours, func() call { return withFallback(fn, append(backstayPolicies(), minute())...) }},
		subject{failsafeName, func() call {
			return failsafeExecution(fn, append(failsafePolicies(), failsafetimeout.New[int](time.Minute))...)
		}},
	)
	l.both(twoTimesCase+suffix, fn,
		subject{contextName, func() call { return withTimeout(fn) }},
		subject{ours, func() call {
			return withFallback(fn, append(append([]backstay.Policy{minute()}, backstayPolicies()...), minute())...)
		}},
		subject{failsafeName, func() call {
			policies := append([]failsafe.Policy[int]{failsafetimeout.New[int](time.Minute)}, failsafePolicies()...)
			return failsafeExecution(fn, append(policies, failsafetimeout.New[int](time.Minute))...)
		}},
	)
	l.both(timeoutCase+suffix, fn,
		subject{contextName, func() call { return withTimeout(fn) }},
		subject{ours, func() call { return timeout.Wrap(timeout.New(timeout.Config{After: time.Minute}), fn) }},
		subject{failsafeName, func() call { return failsafeExecution(fn, failsafetimeout.New[int](time.Minute)) }},
	)
}

// waits does the work, and looks at the end of its context first, as everything does that may block.
func waits(ctx context.Context, n int) (int, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	default:
		return work(ctx, n)
	}
}

func backstayPolicies() []backstay.Policy {
	return []backstay.Policy{
		retry.New(retry.Config{}), breaker.New(breaker.Config{}), bulkhead.New(bulkhead.Config{MaxConcurrent: slots}),
	}
}

func minute() backstay.Policy { return timeout.New(timeout.Config{After: time.Minute}) }

func withFallback(fn call, policies ...backstay.Policy) call {
	return fallback.Wrap(fallback.New(fallback.Config{}), backstay.Wrap(fn, policies...), zero)
}

func zero(context.Context, int, error) (int, error) { return 0, nil }

func failsafePolicies() []failsafe.Policy[int] {
	return []failsafe.Policy[int]{
		failsafefallback.NewWithResult(0), retrypolicy.NewWithDefaults[int](),
		circuitbreaker.NewBuilder[int]().WithFailureThresholdRatio(50, 100).Build(), failsafebulkhead.New[int](slots),
	}
}

// failsafeExecution gives fn the context of the execution, which is how a timeout reaches it.
func failsafeExecution(fn call, policies ...failsafe.Policy[int]) call {
	executor := failsafe.With(policies...)
	return func(ctx context.Context, n int) (int, error) {
		return executor.WithContext(ctx).GetWithExecution(func(exec failsafe.Execution[int]) (int, error) { return fn(exec.Context(), n) })
	}
}

func withTimeout(fn call) call {
	return func(ctx context.Context, n int) (int, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return fn(ctx, n)
	}
}

// byHand is what people write without a library: a limit and a deadline.
func byHand(fn call) call {
	s := semaphore.NewWeighted(slots)
	return func(ctx context.Context, n int) (int, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := s.Acquire(ctx, 1); err != nil {
			return 0, err
		}
		defer s.Release(1)
		return fn(ctx, n)
	}
}

// combinators are the patterns that produce or choose values.
func combinators(l *list) {
	l.add("fallback, not used", work, fallbacks(work)...)
	l.add("fallback, used", broken, fallbacks(broken)...)
	l.add("hedge, not used", work,
		subject{"goroutine and channel", func() call { return onGoroutine }},
		subject{ours, func() call { return hedge.Wrap(hedge.New(hedge.Config{After: time.Minute}), work, nil) }},
		subject{failsafeName, func() call { return failsafeExecutor(work, hedgepolicy.NewWithDelay[int](time.Minute)) }},
	)
}

func broken(context.Context, int) (int, error) { return 0, errBroken }

func fallbacks(fn call) []subject {
	return []subject{
		{ours, func() call { return fallback.Wrap(fallback.New(fallback.Config{}), fn, zero) }},
		{failsafeName, func() call { return failsafeExecutor(fn, failsafefallback.NewWithResult(0)) }},
	}
}

// onGoroutine is the least that a hedge can cost: the work on another goroutine, and its result back.
func onGoroutine(ctx context.Context, n int) (int, error) {
	result := make(chan int, 1)
	go func() {
		out, _ := work(ctx, n)
		result <- out
	}()
	return <-result, nil
}
