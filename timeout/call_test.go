package timeout_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/timeout"
)

func TestACallLastsUntilItIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := minute()
		call := to.Start(t.Context())
		ctx := call.Context()
		deadline, ok := ctx.Deadline()
		require.True(t, ok)
		require.Equal(t, time.Minute, time.Until(deadline))
		<-time.After(59 * time.Second)
		require.False(t, isDone(ctx))
		require.Equal(t, errBroken, call.End(errBroken), "as it is")
		require.Equal(t, context.Canceled, ctx.Err())
		require.Equal(t, timeout.Stats{Calls: 1}, to.Stats())
	})
}

func TestACallThatRanOutIsCountedOnceHoweverOftenItIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{Name: "body", After: time.Second})
		call := to.Start(t.Context())
		start := time.Now()
		broke := hang(call.Context())
		require.Equal(t, time.Second, time.Since(start))
		require.Zero(t, to.Stats().TimedOut, "only End counts")
		for range 3 {
			err := call.End(broke)
			require.ErrorIs(t, err, timeout.ErrTimeout)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.EqualError(t, err, `timeout "body": no answer within 1s: reading the reply: context deadline exceeded`)
			require.NoError(t, call.End(nil), "what it is told is good is good")
			require.Equal(t, timeout.Stats{Calls: 1, TimedOut: 1}, to.Stats())
		}
	})
}

// A stream may be closed while somebody reads it: the one who closes must not hide the reason from the reader.
func TestAnErrorAfterANilIsRecognisedIfTheTimeWasUpBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{After: time.Second})
		call := to.Start(t.Context())
		broke := hang(call.Context())
		require.NoError(t, call.End(nil))
		require.Zero(t, to.Stats().TimedOut)
		require.ErrorIs(t, call.End(broke), timeout.ErrTimeout)
		require.EqualValues(t, 1, to.Stats().TimedOut)

		call = to.Start(t.Context())
		require.False(t, isDone(call.Context()))
		require.NoError(t, call.End(nil), "in time")
		<-time.After(time.Minute)
		require.Equal(t, errBroken, call.End(errBroken), "as it is")
		require.Equal(t, timeout.Stats{Calls: 2, TimedOut: 1}, to.Stats())
	})
}

func TestACallWhoseCallerLeftIsNotOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		to := minute()
		call := to.Start(parent)
		broke := hang(call.Context())
		<-time.After(time.Hour)
		require.Equal(t, broke, call.End(broke))
		require.Equal(t, timeout.Stats{Calls: 1}, to.Stats())
	})
}

func TestACallOfATimeoutThatIsOffHasTheCallersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{After: -1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		call := to.Start(ctx)
		require.Equal(t, ctx, call.Context())
		require.Equal(t, errBroken, call.End(errBroken))
		<-ctx.Done()
		require.Equal(t, errBroken, call.End(errBroken))
		require.NoError(t, call.End(nil))
		require.Equal(t, timeout.Stats{Calls: 1}, to.Stats())
	})
}

func TestACallKeepsTheTimeItBeganWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{Name: "before", After: time.Second})
		call := to.Start(t.Context())
		require.NoError(t, to.Reconfigure(timeout.Config{Name: "after", After: -1}))
		var ranOut *timeout.Error
		require.ErrorAs(t, call.End(hang(call.Context())), &ranOut)
		require.Equal(t, "before", ranOut.Name)
		require.Equal(t, time.Second, ranOut.After)
	})
}

func TestEndingACallFromManySidesAtOnce(t *testing.T) {
	to := timeout.New(timeout.Config{After: time.Nanosecond})
	const calls = 5000
	for range calls {
		call := to.Start(t.Context())
		broke := hang(call.Context())
		var sides sync.WaitGroup
		var ready, told atomic.Int32
		for range 2 {
			sides.Go(func() {
				for ready.Add(1); ready.Load() < 2; { // at once indeed
					runtime.Gosched()
				}
				if errors.Is(call.End(broke), timeout.ErrTimeout) {
					told.Add(1)
				}
			})
			sides.Go(func() { _ = call.End(nil) })
		}
		sides.Wait()
		require.EqualValues(t, 2, told.Load())
	}
	require.Equal(t, timeout.Stats{Calls: calls, TimedOut: calls}, to.Stats())
}

func TestACallThatNobodyEndsLetsGoOfTheCallerInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent := &counted{Context: t.Context(), done: make(chan struct{}), onWatch: func() {}}
		to := minute()
		call := to.Start(parent)
		require.False(t, isDone(call.Context()))
		require.EqualValues(t, 1, parent.watching.Load())
		<-time.After(time.Minute)
		synctest.Wait()
		require.Zero(t, parent.watching.Load())
		require.Zero(t, to.Stats().TimedOut)
	})
}

// A connection has a timer of its own for the deadline of the context, and either may be the first.
func TestAnOperationThatKeepsTheDeadlineByATimerOfItsOwnTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{After: time.Second})
		const calls = 300
		for range calls {
			require.ErrorIs(t, to.Do(t.Context(), func(ctx context.Context) error {
				deadline, _ := ctx.Deadline()
				own := time.NewTimer(time.Until(deadline)) // made first, so that it is often the first
				require.False(t, isDone(ctx))
				<-own.C
				return errBroken
			}), timeout.ErrTimeout)
		}
		require.EqualValues(t, calls, to.Stats().TimedOut)
	})
}

func TestACallThatWaitsForNothingIsOneAllocation(t *testing.T) {
	to, ctx := minute(), context.Background()
	require.LessOrEqual(t, testing.AllocsPerRun(200, func() {
		call := to.Start(ctx)
		_ = call.End(call.Context().Err())
	}), 1.0)
}
