package backstay_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/backstay-go/backstay/retry"
)

// fixed is a retrier with exact delays.
func fixed(attempts int, delay time.Duration) *retry.Retrier {
	return retry.New(retry.Config{MaxAttempts: attempts, InitialInterval: delay, Multiplier: 1, Jitter: -1})
}

func TestT13_ADeadlineShorterThanTheDelayEndsAtOnceWithBothErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := fixed(3, 2*time.Second).Do(ctx, breakIt)
		require.Zero(t, time.Since(start))
		require.ErrorIs(t, err, errBroken)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, retry.ErrExhausted)
		require.NoError(t, ctx.Err(), "the caller has time left to do something else")
	})
}

func TestT14_ACancelledCallerGetsNoAttempt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := fixed(3, time.Millisecond).Do(ctx, func(context.Context) error { t.Error("it ran"); return nil })
	require.ErrorIs(t, err, context.Canceled)
}

func TestT15_ACancelEndsTheSleepAndThereIsNoneAfterTheLastAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		err := fixed(3, time.Hour).Do(ctx, breakIt)
		require.Equal(t, time.Second, time.Since(start))
		require.ErrorIs(t, err, errBroken)
		require.ErrorIs(t, err, context.Canceled)

		start = time.Now()
		require.ErrorIs(t, fixed(3, time.Minute).Do(t.Context(), breakIt), errBroken)
		require.Equal(t, 2*time.Minute, time.Since(start), "three attempts have two delays")
	})
}

func TestT16_OneRetrierServesManyCallers(t *testing.T) {
	r := fixed(4, time.Microsecond)
	var attempts atomic.Int64
	var callers errgroup.Group
	for range 8 {
		callers.Go(func() error {
			return r.Do(context.Background(), func(context.Context) error { attempts.Add(1); return errBroken })
		})
	}
	require.ErrorIs(t, callers.Wait(), errBroken)
	require.EqualValues(t, 32, attempts.Load())
	require.EqualValues(t, 24, r.Stats().Retries)
}
