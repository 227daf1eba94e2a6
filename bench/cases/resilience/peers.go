package resilience

import (
	"context"
	"time"

	avast "github.com/avast/retry-go/v5"
	"github.com/cenkalti/backoff/v4"
	sethvargo "github.com/sethvargo/go-retry"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/backstay-go/backstay/bench/cases"
)

func goBreaker() *subject {
	return &subject{Subject: cases.Subject{Key: "gobreaker", Name: "gobreaker 2.4.0"}, breaker: goBreakerCircuit}
}

func goBreakerCircuit(spec circuitSpec) circuit {
	var c circuit
	settings := gobreaker.Settings{
		MaxRequests: uint32(spec.probes),
		Timeout:     spec.delay,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= uint32(spec.failures) },
	}
	if spec.window > 0 { // the rolling window: the fixed one misses failures across an edge
		settings.Interval, settings.BucketPeriod = spec.window, spec.window/10
		settings.ReadyToTrip = func(counts gobreaker.Counts) bool { return counts.TotalFailures >= uint32(spec.failures) }
	}
	if spec.onChange != nil {
		settings.OnStateChange = func(_ string, from, to gobreaker.State) {
			spec.onChange(c, func() uint { return uint(from) + uint(to) })
		}
	}
	b := gobreaker.NewCircuitBreaker[any](settings)
	c = circuit{
		do: func(_ context.Context, op func() error) error {
			_, err := b.Execute(func() (any, error) { return nil, op() })
			return err
		},
		state: func() string { return b.State().String() },
	}
	return c
}

func sethvargoRetry() *subject {
	return &subject{Subject: cases.Subject{Key: "sethvargo", Name: "sethvargo/go-retry 0.5.0"}, retry: func(spec retrySpec) retrier {
		policy := sethvargo.WithMaxRetries(uint64(spec.attempts-1), sethvargo.NewConstant(spec.delay))
		return func(op func(context.Context) error) error {
			return sethvargo.Do(spec.ctx, policy, func(ctx context.Context) error { return sethvargo.RetryableError(op(ctx)) })
		}
	}}
}

func avastRetry() *subject {
	return &subject{Subject: cases.Subject{Key: "avast", Name: "avast/retry-go 5.1.1"}, retry: func(spec retrySpec) retrier {
		policy := avast.New(avast.Context(spec.ctx), avast.Attempts(uint(spec.attempts)), avast.Delay(spec.delay),
			avast.DelayType(avast.FixedDelay))
		return func(op func(context.Context) error) error {
			return policy.Do(func() error { return op(spec.ctx) })
		}
	}}
}

func backoffV4() *subject {
	return &subject{Subject: cases.Subject{Key: "backoff", Name: "backoff 4.3.0"}, retry: func(spec retrySpec) retrier {
		policy := backoff.WithContext(backoff.WithMaxRetries(backoff.NewConstantBackOff(spec.delay), uint64(spec.attempts-1)), spec.ctx)
		return func(op func(context.Context) error) error {
			return backoff.Retry(func() error { return op(spec.ctx) }, policy)
		}
	}}
}

func xSync() *subject {
	return &subject{Subject: cases.Subject{Key: "xsync", Name: "x/sync semaphore 0.24.0"}, bulkhead: &bulkheads{create: func() runner {
		slots := semaphore.NewWeighted(1)
		return func(ctx context.Context, op func(context.Context) error) error {
			if err := slots.Acquire(ctx, 1); err != nil {
				return err
			}
			defer slots.Release(1)
			return op(ctx)
		}
	}}}
}

func xTime() *subject {
	return &subject{Subject: cases.Subject{Key: "xtime", Name: "x/time rate 0.16.0"}, limiter: func(every time.Duration) limiter {
		return rate.NewLimiter(rate.Every(every), 1).Wait
	}}
}
