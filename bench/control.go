package bench

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/failsafe-go/failsafe-go"
	failsafebulkhead "github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/semaphore"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

const (
	failsafeName  = "failsafe-go 0.9.8"
	gobreakerName = "gobreaker 2.4.0"
	backoffName   = "backoff 4.3.0"
	semaphoreName = "x/sync semaphore 0.24.0"
	contextName   = "context.WithTimeout"
)

func control() []Case {
	const area = "control"
	var cases []Case
	add := func(name, subject string, run func(*testing.B)) {
		cases = append(cases, Case{Area: area, Name: name, Subject: subject, Run: run})
	}

	name := "breaker closed, success"
	add(name, Floor, loop(work))
	add(name, "backstay", loop(breaker.Wrap(breaker.New(breaker.Config{}), work)))
	add(name, failsafeName+" (bare)", loop(failsafeBreaker()))
	add(name, gobreakerName, loop(gobreakerClosed()))

	name = "breaker open, rejection"
	add(name, Floor, loop(work))
	add(name, "backstay", loop(openBreaker()))
	add(name, gobreakerName, loop(gobreakerOpen()))

	name = "bulkhead, free"
	add(name, Floor, loop(work))
	add(name, "backstay", loop(bulkhead.Wrap(bulkhead.New(bulkhead.Config{MaxConcurrent: 8}), work)))
	add(name, semaphoreName, loop(weighted()))
	add(name, failsafeName+" (bare)", loop(failsafeBulkhead()))

	name = "retry, first attempt succeeds"
	add(name, Floor, loop(work))
	add(name, "backstay", loop(retry.Wrap(retry.New(retry.Config{}), work)))
	add(name, backoffName, loop(retryBackOff()))
	add(name, failsafeName, loop(failsafeExecutor(retrypolicy.NewWithDefaults[int]())))

	name = "timeout"
	add(name, Floor, loop(work))
	add(name, "backstay", loop(timeout.Wrap(timeout.New(timeout.Config{After: time.Minute}), work)))
	add(name, contextName, loop(withTimeout))

	name = "retry, breaker and bulkhead"
	add(name, Floor, loop(work))
	add(name, "backstay", loop(backstay.Wrap(work, retry.New(retry.Config{}), breaker.New(breaker.Config{}), bulkhead.New(bulkhead.Config{}))))
	add(name, failsafeName, loop(failsafeExecutor(retrypolicy.NewWithDefaults[int](), circuitbreaker.NewWithDefaults[int](), failsafebulkhead.New[int](10))))
	return cases
}

var errBroken = errors.New("broken")

func openBreaker() func(context.Context, int) (int, error) {
	b := breaker.New(breaker.Config{ConsecutiveFailures: 1, OpenDelay: time.Hour})
	_ = b.Do(context.Background(), func(context.Context) error { return errBroken }) // opens it
	return breaker.Wrap(b, work)
}

func failsafeBreaker() func(context.Context, int) (int, error) {
	b := circuitbreaker.NewBuilder[int]().WithFailureThresholdRatio(50, 100).Build()
	return func(ctx context.Context, n int) (int, error) {
		if !b.TryAcquirePermit() {
			return 0, circuitbreaker.ErrOpen
		}
		out, err := work(ctx, n)
		b.RecordResult(out)
		return out, err
	}
}

func gobreakerClosed() func(context.Context, int) (int, error) {
	b := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{})
	return func(ctx context.Context, n int) (int, error) {
		return b.Execute(func() (int, error) { return work(ctx, n) })
	}
}

func gobreakerOpen() func(context.Context, int) (int, error) {
	b := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{
		Timeout:     time.Hour,
		ReadyToTrip: func(gobreaker.Counts) bool { return true },
	})
	_, _ = b.Execute(func() (int, error) { return 0, errBroken }) // opens it
	return func(ctx context.Context, n int) (int, error) {
		return b.Execute(func() (int, error) { return work(ctx, n) })
	}
}

func weighted() func(context.Context, int) (int, error) {
	s := semaphore.NewWeighted(8)
	return func(ctx context.Context, n int) (int, error) {
		if err := s.Acquire(ctx, 1); err != nil {
			return 0, err
		}
		defer s.Release(1)
		return work(ctx, n)
	}
}

func failsafeBulkhead() func(context.Context, int) (int, error) {
	b := failsafebulkhead.New[int](8)
	return func(ctx context.Context, n int) (int, error) {
		if err := b.AcquirePermit(ctx); err != nil {
			return 0, err
		}
		defer b.ReleasePermit()
		return work(ctx, n)
	}
}

func retryBackOff() func(context.Context, int) (int, error) {
	return func(ctx context.Context, n int) (int, error) {
		return backoff.RetryWithData(func() (int, error) { return work(ctx, n) }, backoff.WithContext(&backoff.ZeroBackOff{}, ctx))
	}
}

func failsafeExecutor(policies ...failsafe.Policy[int]) func(context.Context, int) (int, error) {
	executor := failsafe.With(policies...)
	return func(ctx context.Context, n int) (int, error) {
		return executor.Get(func() (int, error) { return work(ctx, n) })
	}
}

func withTimeout(ctx context.Context, n int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return work(ctx, n)
}
