package bench

import (
	"context"
	"time"

	avast "github.com/avast/retry-go/v5"
	"github.com/cenkalti/backoff/v4"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	sethvargo "github.com/sethvargo/go-retry"

	"github.com/backstay-go/backstay/retry"
)

const (
	firstCase = "retry, first attempt succeeds"
	thirdCase = "retry, two failures without delay"
)

func retries(l *list) {
	l.both(firstCase, work, retriers(func() call { return work })...)
	l.add(thirdCase, untilThird(third()), retriers(third)...)
}

// third is a function that succeeds every third time it is called, for one goroutine.
func third() call {
	calls := 0
	return func(_ context.Context, n int) (int, error) {
		if calls++; calls%3 != 0 {
			return 0, errBroken
		}
		return n + 1, nil
	}
}

// untilThird is the loop that one would write by hand.
func untilThird(fn call) call {
	return func(ctx context.Context, n int) (out int, err error) {
		for range 3 {
			if out, err = fn(ctx, n); err == nil {
				break
			}
		}
		return out, err
	}
}

func retriers(create func() call) []subject {
	return []subject{
		{ours, func() call { return retry.Wrap(retry.New(retry.Config{InitialInterval: -1}), create()) }},
		{avastName, func() call { return avastRetry(create()) }},
		{sethvargoName, func() call { return sethvargoRetry(create()) }},
		{backoffName, func() call { return backoffRetry(create()) }},
		{failsafeName, func() call { return failsafeExecutor(create(), retrypolicy.NewWithDefaults[int]()) }},
	}
}

func avastRetry(fn call) call {
	r := avast.NewWithData[int](avast.Attempts(3), avast.Delay(0), avast.DelayType(avast.FixedDelay))
	return func(ctx context.Context, n int) (int, error) {
		return r.Do(func() (int, error) { return fn(ctx, n) })
	}
}

// sethvargoRetry makes a schedule for each call, since one serves a single call.
func sethvargoRetry(fn call) call {
	now := sethvargo.BackoffFunc(func() (time.Duration, bool) { return 0, false })
	return func(ctx context.Context, n int) (int, error) {
		return sethvargo.DoValue(ctx, sethvargo.WithMaxRetries(2, now), func(ctx context.Context) (int, error) {
			out, err := fn(ctx, n)
			return out, sethvargo.RetryableError(err)
		})
	}
}

func backoffRetry(fn call) call {
	return func(ctx context.Context, n int) (int, error) {
		schedule := backoff.WithContext(backoff.WithMaxRetries(&backoff.ZeroBackOff{}, 2), ctx)
		return backoff.RetryWithData(func() (int, error) { return fn(ctx, n) }, schedule)
	}
}
