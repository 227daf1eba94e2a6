package resilience

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/bench/cases"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

func ours() *subject {
	return &subject{
		Subject:  cases.Subject{Key: "backstay", Name: "backstay"},
		breaker:  backstayCircuit,
		retry:    backstayRetry,
		bulkhead: &bulkheads{create: backstayBulkhead, runs: true},
		client:   backstayClient,
		limiter: func(every time.Duration) limiter {
			return ratelimit.New(ratelimit.Config{Rate: float64(time.Second) / float64(every), Burst: 1, MaxWait: -1}).Wait
		},
		timeouts: []timeoutKind{
			{"timeout", timeout.New(timeout.Config{After: time.Minute}).Do},
			{"abandon", backstayAbandon(time.Minute)},
			{"hedge", backstayHedge()},
		},
		abandon: backstayAbandon,
		derive:  backstayDerive,
		layers:  &layers{breakerOverFull: backstayBreakerOverFull, retryOverOpen: backstayRetryOverOpen},
	}
}

func backstayCircuit(spec circuitSpec) circuit {
	var c circuit
	cfg := breaker.Config{OpenDelay: spec.delay, Probes: spec.probes, ProbeTimeout: spec.lease}
	if spec.window > 0 {
		cfg.WindowTime, cfg.MinimumCalls = spec.window, spec.failures
	} else {
		cfg.FailureRatio, cfg.ConsecutiveFailures = -1, spec.failures
	}
	var opts []breaker.Option
	if spec.onChange != nil {
		opts = append(opts, breaker.OnStateChange(func(e breaker.Transition) {
			spec.onChange(c, func() uint { return uint(e.From) + uint(e.To) + uint(len(e.Name)) + uint(e.At.Nanosecond()) })
		}))
	}
	c = backstayCircuitOf(breaker.New(cfg, opts...))
	return c
}

func backstayCircuitOf(b *breaker.Breaker, inner ...backstay.Policy) circuit {
	policy := backstay.Chain(append([]backstay.Policy{b}, inner...)...)
	return circuit{
		do: func(ctx context.Context, op func() error) error {
			return policy.Do(ctx, func(context.Context) error { return op() })
		},
		state: func() string { return b.State().String() },
	}
}

func backstayRetry(spec retrySpec) retrier {
	r := retry.New(retry.Config{MaxAttempts: spec.attempts, InitialInterval: spec.delay, MaxInterval: spec.delay, Jitter: -1})
	return func(op func(context.Context) error) error { return r.Do(spec.ctx, op) }
}

func backstayClient(attempts int, delay time.Duration) transport {
	r := retry.New(retry.Config{MaxAttempts: attempts, InitialInterval: delay})
	return func(base http.RoundTripper) http.RoundTripper { return policyhttp.Transport(base, r) }
}

func backstayHedge() runner {
	run := hedge.Wrap(hedge.New(hedge.Config{After: time.Minute}), runOperation, nil)
	return func(ctx context.Context, op func(context.Context) error) error {
		_, err := run(ctx, op)
		return err
	}
}

func runOperation(ctx context.Context, op func(context.Context) error) (struct{}, error) {
	return struct{}{}, op(ctx)
}

// backstayAbandon also checks that what is left running is counted.
func backstayAbandon(limit time.Duration) runner {
	t := timeout.New(timeout.Config{After: limit})
	run := timeout.Abandon(t, func(ctx context.Context, op func(context.Context) error) (struct{}, error) {
		return struct{}{}, op(ctx)
	})
	return func(ctx context.Context, op func(context.Context) error) error {
		_, err := run(ctx, op)
		if errors.Is(err, timeout.ErrTimeout) && t.Stats().Abandoned != 1 {
			return nil // which the case takes for a failure
		}
		return err
	}
}

func backstayBulkhead() runner {
	return bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 1, QueueTimeout: 20 * time.Millisecond}).Do
}

// named is a policy that notes its name.
type named struct {
	name  string
	trail *[]string
}

func (n named) Do(ctx context.Context, op func(context.Context) error) error {
	*n.trail = append(*n.trail, n.name)
	return op(ctx)
}

func backstayDerive() (first, second []string) {
	var trail []string
	succeed := func(context.Context) error { return nil }
	base := slices.Grow([]backstay.Policy{named{"base", &trail}}, 8) // room in which an append could overwrite
	one := backstay.Chain(append(base, named{"first", &trail})...)
	two := backstay.Chain(append(base, named{"second", &trail})...)
	_ = one.Do(context.Background(), succeed)
	first, trail = trail, nil
	_ = two.Do(context.Background(), succeed)
	return first, trail
}

func backstayBreakerOverFull() circuit {
	full := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	if _, err := full.Acquire(context.Background()); err != nil {
		panic(err)
	}
	return backstayCircuitOf(breaker.New(breaker.Config{ConsecutiveFailures: 1, OpenDelay: time.Hour}), full)
}

func backstayRetryOverOpen() (run runner, tries func() int) {
	b := breaker.New(breaker.Config{ConsecutiveFailures: 1, OpenDelay: time.Hour})
	_ = b.Do(context.Background(), func(context.Context) error { return errBroken })
	r := retry.New(retry.Config{MaxAttempts: 3, InitialInterval: 30 * time.Millisecond, Jitter: -1})
	return backstay.Chain(r, b).Do, func() int { return int(b.Stats().Rejected) }
}
