package timeout_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/timeout"
)

// deaf is a function that ignores its context until release is closed, and then returns what it was given.
func deaf(release <-chan struct{}) func(context.Context, int) (int, error) {
	return func(_ context.Context, n int) (int, error) {
		<-release
		return n, nil
	}
}

func TestAbandonIsBackInTimeThoughTheFunctionIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{Name: "bank", After: 30 * time.Millisecond})
		release := make(chan struct{})
		fn := timeout.Abandon(to, deaf(release))
		start := time.Now()
		out, err := fn(t.Context(), 7)
		require.Equal(t, 30*time.Millisecond, time.Since(start))
		require.ErrorIs(t, err, timeout.ErrTimeout)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, out)
		require.Equal(t, timeout.Stats{Calls: 1, TimedOut: 1, Abandoned: 1}, to.Stats())

		close(release)
		synctest.Wait()
		require.Zero(t, to.Stats().Abandoned, "it has returned")
	})
}

func TestAbandonLeavesWhenTheCallersContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, after := range []time.Duration{-1, time.Hour} {
			to := timeout.New(timeout.Config{After: after})
			release := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			_, err := timeout.Abandon(to, deaf(release))(ctx, 7)
			require.Equal(t, context.Canceled, err)
			require.Equal(t, time.Second, time.Since(start))
			require.Equal(t, timeout.Stats{Calls: 1, Abandoned: 1}, to.Stats())
			close(release)

			_, err = timeout.Abandon(to, deaf(nil))(ctx, 7)
			require.Equal(t, context.Canceled, err, "not even begun")
			require.EqualValues(t, 1, to.Stats().Calls)
		}
	})
}

func TestAbandonPassesResultsAndErrorsAsTheyAre(t *testing.T) {
	to := timeout.New(timeout.Config{})
	var kept context.Context
	out, err := timeout.Abandon(to, func(ctx context.Context, n int) (int, error) { kept = ctx; return 2 * n, errBroken })(t.Context(), 4)
	require.Equal(t, errBroken, err)
	require.Equal(t, 8, out)
	require.Equal(t, context.Canceled, kept.Err(), "the context ends with the call")
	require.Equal(t, timeout.Stats{Calls: 1}, to.Stats())
}

// At the instant of the deadline the caller must get either the result or the error, never half of one, and what it was not
// given is not counted as abandoned for ever.
func TestAbandonSettlesAPhotoFinishOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{After: time.Second})
		fn := timeout.Abandon(to, func(_ context.Context, n int) (int, error) {
			<-time.After(time.Second)
			return n, nil
		})
		var answered, gaveUp atomic.Int64
		var callers sync.WaitGroup
		for i := range 1000 {
			callers.Go(func() {
				switch out, err := fn(t.Context(), i+1); {
				case err == nil && out == i+1:
					answered.Add(1)
				case err != nil && out == 0:
					gaveUp.Add(1)
				}
			})
		}
		callers.Wait()
		synctest.Wait()
		require.EqualValues(t, 1000, answered.Load()+gaveUp.Load())
		require.Equal(t, timeout.Stats{Calls: 1000, TimedOut: gaveUp.Load()}, to.Stats())
	})
}

func blowUp() { panic(errBroken) }

func TestAbandonHandsAPanicToTheCallerWithItsStack(t *testing.T) {
	to := timeout.New(timeout.Config{})
	fn := timeout.Abandon(to, func(context.Context, int) (int, error) { blowUp(); return 0, nil })
	defer func() {
		p, ok := recover().(*timeout.Panic)
		require.True(t, ok)
		require.Equal(t, errBroken, p.Value)
		require.ErrorIs(t, p, errBroken)
		require.Contains(t, string(p.Stack), "timeout_test.blowUp")
		require.Contains(t, p.Error(), "timeout: panic: broken")
		require.Zero(t, to.Stats().LatePanics)
	}()
	_, _ = fn(t.Context(), 1)
}

func TestAbandonHandsGoexitToTheCaller(t *testing.T) {
	fn := timeout.Abandon(timeout.New(timeout.Config{}), func(context.Context, int) (int, error) { runtime.Goexit(); return 0, nil })
	returned := false
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = fn(t.Context(), 1)
		returned = true
	}()
	<-left
	require.False(t, returned)
}

func TestALatePanicIsCountedAndEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen *timeout.Panic
		to := timeout.New(timeout.Config{After: time.Second}, timeout.OnLatePanic(func(p *timeout.Panic) { seen = p }))
		silent := timeout.New(timeout.Config{After: time.Second})
		for _, to := range []*timeout.Timeout{to, silent} {
			_, err := timeout.Abandon(to, func(context.Context, int) (int, error) {
				<-time.After(time.Minute)
				panic("too late")
			})(t.Context(), 1)
			require.ErrorIs(t, err, timeout.ErrTimeout)
		}
		<-time.After(time.Hour)
		synctest.Wait()
		require.Equal(t, timeout.Stats{Calls: 1, TimedOut: 1, LatePanics: 1}, to.Stats())
		require.Equal(t, to.Stats(), silent.Stats())
		require.Equal(t, "too late", seen.Value)
		require.NoError(t, seen.Unwrap())
	})
}

func TestAbandonUnderLoadLosesCountOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{After: 10 * time.Millisecond})
		random := rand.New(rand.NewPCG(1, 2))
		fn := timeout.Abandon(to, func(_ context.Context, d time.Duration) (time.Duration, error) {
			<-time.After(d)
			return d, nil
		})
		var callers sync.WaitGroup
		var wrong atomic.Int64
		for range 2000 {
			d := time.Duration(random.Int64N(int64(20 * time.Millisecond)))
			callers.Go(func() {
				if out, err := fn(t.Context(), d); (err == nil) != (out == d) || err == nil && d > 10*time.Millisecond {
					wrong.Add(1)
				}
			})
			_ = to.Reconfigure(to.Config())
		}
		callers.Wait()
		<-time.After(time.Second)
		synctest.Wait()
		require.Zero(t, wrong.Load())
		require.Zero(t, to.Stats().Abandoned)
	})
}

func TestAbandonRefusesNil(t *testing.T) {
	require.Panics(t, func() { timeout.Abandon[int, int](timeout.New(timeout.Config{}), nil) })
	require.Panics(t, func() { timeout.Abandon(nil, deaf(nil)) })
	require.Panics(t, func() { timeout.OnLatePanic(nil) })
}
