package timeout_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/timeout"
)

type key struct{}

// Whoever looks at the context, and however, sees what the context of package context would show.
func TestTheContextBehavesAsThatOfTheStandardLibrary(t *testing.T) {
	looks := map[string]func(context.Context) error{
		"Err":   func(ctx context.Context) error { return ctx.Err() },
		"Cause": context.Cause,
		"Done":  func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"child": func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			return ctx.Err()
		},
		"AfterFunc": func(ctx context.Context) error {
			stop := context.AfterFunc(ctx, func() {})
			defer stop()
			return ctx.Err()
		},
	}
	for name, look := range looks {
		synctest.Test(t, func(t *testing.T) {
			to := timeout.New(timeout.Config{After: time.Second})
			parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, 7))
			err := to.Do(parent, func(ctx context.Context) error {
				deadline, ok := ctx.Deadline()
				require.True(t, ok)
				require.Equal(t, time.Second, time.Until(deadline))
				require.Equal(t, 7, ctx.Value(key{}))
				if name != "Done" {
					require.NoError(t, look(ctx), name)
				}
				require.Equal(t, 7, ctx.Value(key{}), name)
				<-time.After(time.Second)
				synctest.Wait()
				require.ErrorIs(t, look(ctx), context.DeadlineExceeded, name)
				cancel()
				require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded, "it ended first: %s", name)
				return errBroken
			})
			require.ErrorIs(t, err, timeout.ErrTimeout, "the time was up, looked at or not: %s", name)

			parent, cancel = context.WithCancel(t.Context())
			require.Equal(t, errBroken, to.Do(parent, func(ctx context.Context) error {
				cancel()
				require.Equal(t, context.Canceled, look(ctx), name)
				<-time.After(time.Hour)
				require.Equal(t, context.Canceled, look(ctx), "the caller left first: %s", name)
				return errBroken
			}))

			var kept context.Context
			require.NoError(t, to.Do(t.Context(), func(ctx context.Context) error { kept = ctx; return nil }))
			require.Equal(t, context.Canceled, look(kept), "after the call: %s", name)
			require.Contains(t, fmt.Sprint(kept), ".Timeout")
		})
	}
}

func TestTheEarlierDeadlineCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		to := timeout.New(timeout.Config{After: time.Minute})
		require.NoError(t, to.Do(parent, func(ctx context.Context) error {
			deadline, _ := ctx.Deadline()
			require.Equal(t, time.Second, time.Until(deadline))
			return nil
		}))
	})
}

func TestATimeoutThatNobodyLookedAtIsTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{After: time.Second})
		require.ErrorIs(t, to.Do(t.Context(), func(context.Context) error {
			<-time.After(time.Second)
			return errBroken
		}), timeout.ErrTimeout)
		require.EqualValues(t, 1, to.Stats().TimedOut)
	})
}

func TestErrMayBeAskedAnyNumberOfTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{After: time.Second})
		err := to.Do(t.Context(), func(ctx context.Context) error {
			for range 100 {
				require.NoError(t, ctx.Err())
			}
			return hang(ctx)
		})
		require.ErrorIs(t, err, timeout.ErrTimeout)
	})
}

// Goroutines that the operation leaves behind may begin to wait at the moment the call returns: none waits for ever.
func TestWaitingForAContextWhileTheCallReturns(t *testing.T) {
	to := timeout.New(timeout.Config{After: time.Hour})
	var left sync.WaitGroup
	for range 500 {
		require.NoError(t, to.Do(t.Context(), func(ctx context.Context) error {
			for range 2 {
				left.Go(func() { <-ctx.Done() })
			}
			return nil
		}))
	}
	left.Wait()
}

func TestACallThatWaitsForNothingArmsNoTimer(t *testing.T) {
	ctx := context.Background()
	fn := timeout.Wrap(timeout.New(timeout.Config{}), func(ctx context.Context, n int) (int, error) { return n, ctx.Err() })
	require.LessOrEqual(t, testing.AllocsPerRun(200, func() { _, _ = fn(ctx, 1) }), 1.0)
}
