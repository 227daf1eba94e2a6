package resilience

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/hedgepolicy"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/failsafe-go/failsafe-go/timeout"

	"github.com/backstay-go/backstay/bench/cases"
)

func failsafeGo() *subject {
	return &subject{
		Subject:  cases.Subject{Key: "failsafe", Name: "failsafe-go 0.9.8"},
		breaker:  failsafeCircuit,
		retry:    failsafeRetry,
		client:   failsafeClient,
		bulkhead: &bulkheads{create: failsafeBulkhead, withListener: failsafeListeningBulkhead, runs: true},
		limiter: func(every time.Duration) limiter {
			return ratelimiter.NewSmoothWithMaxRate[any](every).AcquirePermit
		},
		timeouts: []timeoutKind{
			{"timeout", failsafeRunner(timeout.New[any](time.Minute))},
			{"hedge", failsafeRunner(hedgepolicy.NewWithDelay[any](time.Minute))},
			{"async", func(ctx context.Context, op func(context.Context) error) error {
				return failsafe.With(timeout.New[any](time.Minute)).RunAsync(func() error { return op(ctx) }).Error()
			}},
		},
		abandon: func(limit time.Duration) runner { return failsafeRunner(timeout.New[any](limit)) },
		derive:  failsafeDerive,
		layers:  &layers{breakerOverFull: failsafeBreakerOverFull, retryOverOpen: failsafeRetryOverOpen},
	}
}

func failsafeRunner(policies ...failsafe.Policy[any]) runner {
	executor := failsafe.With(policies...)
	return func(ctx context.Context, op func(context.Context) error) error {
		return executor.WithContext(ctx).RunWithExecution(func(exec failsafe.Execution[any]) error { return op(exec.Context()) })
	}
}

func failsafeCircuit(spec circuitSpec) circuit {
	var c circuit
	builder := circuitbreaker.NewBuilder[any]().WithDelay(spec.delay).WithFailureThreshold(uint(spec.failures))
	if spec.window > 0 {
		builder = builder.WithFailureThresholdPeriod(uint(spec.failures), spec.window)
	}
	builder = builder.WithSuccessThreshold(uint(spec.probes))
	if spec.onChange != nil {
		builder = builder.OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
			spec.onChange(c, func() uint { return e.Metrics().Failures() + e.Metrics().Executions() })
		})
	}
	c = failsafeCircuitOf(builder.Build())
	return c
}

func failsafeCircuitOf(b circuitbreaker.CircuitBreaker[any], inner ...failsafe.Policy[any]) circuit {
	run := failsafeRunner(append([]failsafe.Policy[any]{b}, inner...)...)
	return circuit{
		do: func(ctx context.Context, op func() error) error {
			return run(ctx, func(context.Context) error { return op() })
		},
		state: func() string {
			switch b.State() {
			case circuitbreaker.ClosedState:
				return "closed"
			case circuitbreaker.OpenState:
				return "open"
			default:
				return "half-open"
			}
		},
	}
}

func failsafeRetry(spec retrySpec) retrier {
	run := failsafeRunner(retrypolicy.NewBuilder[any]().WithMaxAttempts(spec.attempts).WithDelay(spec.delay).Build())
	return func(op func(context.Context) error) error { return run(spec.ctx, op) }
}

func failsafeClient(attempts int, delay time.Duration) transport {
	policy := failsafehttp.NewRetryPolicyBuilder().WithMaxAttempts(attempts).WithDelay(delay).Build()
	return func(base http.RoundTripper) http.RoundTripper { return failsafehttp.NewRoundTripper(base, policy) }
}

// failsafeBulkhead waits a little for a permit, which is when a cancelled context matters.
func failsafeBulkhead() runner {
	return failsafeRunner(bulkhead.NewBuilder[any](1).WithMaxWaitTime(20 * time.Millisecond).Build())
}

func failsafeListeningBulkhead(listener func()) runner {
	return failsafeRunner(bulkhead.NewBuilder[any](1).OnReleased(func(failsafe.ExecutionEvent[any]) { listener() }).Build())
}

// failsafeNamed is a policy that notes its name when an attempt fails under it.
func failsafeNamed(name string, trail *[]string) failsafe.Policy[any] {
	return retrypolicy.NewBuilder[any]().WithMaxAttempts(1).
		OnFailure(func(failsafe.ExecutionEvent[any]) { *trail = append([]string{name}, *trail...) }).Build()
}

func failsafeDerive() (first, second []string) {
	var trail []string
	fail := func() error { return errBroken }
	base := failsafe.With(failsafeNamed("base", &trail))
	one, two := base.Compose(failsafeNamed("first", &trail)), base.Compose(failsafeNamed("second", &trail))
	_ = one.Run(fail)
	first, trail = trail, nil
	_ = two.Run(fail)
	return first, trail
}

func failsafeBreakerOverFull() circuit {
	full := bulkhead.New[any](1)
	full.TryAcquirePermit()
	return failsafeCircuitOf(circuitbreaker.NewBuilder[any]().WithFailureThreshold(1).WithDelay(time.Hour).Build(), full)
}

func failsafeRetryOverOpen() (run runner, tries func() int) {
	b := circuitbreaker.NewBuilder[any]().WithDelay(time.Hour).Build()
	b.Open()
	var retries atomic.Int64
	retry := retrypolicy.NewBuilder[any]().WithMaxAttempts(3).WithDelay(30 * time.Millisecond).
		OnRetry(func(failsafe.ExecutionEvent[any]) { retries.Add(1) }).Build()
	return failsafeRunner(retry, b), func() int { return 1 + int(retries.Load()) }
}
