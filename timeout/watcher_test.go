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
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/timeout"
)

var errLeft = errors.New("the caller left")

func minute() *timeout.Timeout { return timeout.New(timeout.Config{After: time.Minute}) }

// isDone looks without waiting, as a loop does between two pieces of work.
func isDone(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

func TestTheCallersEndIsSeenAtOnce(t *testing.T) {
	for range 3000 {
		parent, cancel := context.WithCancel(t.Context())
		require.NoError(t, minute().Do(parent, func(ctx context.Context) error {
			require.False(t, isDone(ctx))
			cancel()
			require.True(t, isDone(ctx), "though nobody has told it yet")
			require.Equal(t, context.Canceled, ctx.Err())
			return nil
		}))
	}
}

// The cause is that of the end that came first, for the context and for those made of it.
func TestTheCauseStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, leave := context.WithCancelCause(t.Context())
		var kept context.Context
		require.NoError(t, minute().Do(parent, func(ctx context.Context) error {
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			kept = ctx
			require.NoError(t, context.Cause(ctx))
			<-child.Done()
			require.Equal(t, context.DeadlineExceeded, child.Err())
			require.ErrorIs(t, context.Cause(child), timeout.ErrTimeout)
			return nil
		}))
		leave(errLeft)
		require.ErrorIs(t, context.Cause(kept), timeout.ErrTimeout, "the caller left later")

		parent, leave = context.WithCancelCause(t.Context())
		require.NoError(t, minute().Do(parent, func(ctx context.Context) error { kept = ctx; return nil }))
		leave(errLeft)
		require.Equal(t, context.Canceled, context.Cause(kept), "the call had returned")

		parent, leave = context.WithCancelCause(t.Context())
		require.NoError(t, minute().Do(parent, func(ctx context.Context) error {
			leave(errLeft)
			<-ctx.Done()
			require.Equal(t, errLeft, context.Cause(ctx))
			return nil
		}))
	})
}

// An attempt inside a total timeout is told of its end directly, through whatever lies between.
func TestATimeoutInsideAnotherEndsWithIt(t *testing.T) {
	between := map[string]func(context.Context) context.Context{
		"nothing": func(ctx context.Context) context.Context { return ctx },
		"a value": func(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, 7) },
		"a cancel": func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancel(ctx)
			t.Cleanup(cancel)
			return ctx
		},
	}
	for name, wrap := range between {
		synctest.Test(t, func(t *testing.T) {
			total := timeout.New(timeout.Config{Name: "total", After: time.Second})
			attempt := minute()
			start := time.Now()
			err := total.Do(t.Context(), func(ctx context.Context) error { return attempt.Do(wrap(ctx), hang) })
			require.Equal(t, time.Second, time.Since(start), name)
			var ranOut *timeout.Error
			require.ErrorAs(t, err, &ranOut)
			require.Equal(t, "total", ranOut.Name, name)
			require.Zero(t, attempt.Stats().TimedOut, name)

			long := timeout.New(timeout.Config{After: time.Hour})
			start = time.Now()
			require.NoError(t, long.Do(t.Context(), func(ctx context.Context) error {
				require.ErrorIs(t, attempt.Do(wrap(ctx), hang), timeout.ErrTimeout, name)
				require.NoError(t, ctx.Err(), "the outer one goes on: %s", name)
				return nil
			}))
			require.Equal(t, time.Minute, time.Since(start), name)
		})
	}
}

func TestACancelBetweenTwoTimeoutsEndsTheInnerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempt := minute()
		require.NoError(t, timeout.New(timeout.Config{After: time.Hour}).Do(t.Context(), func(ctx context.Context) error {
			between, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			require.ErrorIs(t, attempt.Do(between, hang), context.Canceled)
			require.Equal(t, time.Second, time.Since(start))
			return ctx.Err()
		}))
		require.Zero(t, attempt.Stats().TimedOut)
	})
}

func TestAFunctionThatBlocksDoesNotHoldUpTheCall(t *testing.T) {
	returned, called := make(chan struct{}), make(chan struct{})
	require.NoError(t, minute().Do(t.Context(), func(ctx context.Context) error {
		context.AfterFunc(ctx, func() { <-returned; close(called) })
		afterFunc(ctx, t, func() { <-called })
		return nil
	}))
	close(returned)
	<-called
}

// afterFunc asks the context itself, as package context does: the function of the same name there has a guard of its own.
func afterFunc(ctx context.Context, t *testing.T, f func()) (stop func() bool) {
	t.Helper()
	watched, ok := ctx.(interface{ AfterFunc(func()) func() bool })
	require.True(t, ok)
	return watched.AfterFunc(f)
}

func TestThoseWhoStopWatchingAreNotTold(t *testing.T) {
	const watchers = 5
	for first := range watchers {
		for second := range watchers {
			synctest.Test(t, func(t *testing.T) {
				var told [watchers]atomic.Int64
				var stops [watchers]func() bool
				require.NoError(t, minute().Do(t.Context(), func(ctx context.Context) error {
					for i := range stops {
						stops[i] = afterFunc(ctx, t, func() { told[i].Add(1) })
					}
					require.True(t, stops[first]())
					require.Equal(t, first != second, stops[second](), "it has stopped already")
					synctest.Wait()
					for i := range told {
						require.Zero(t, told[i].Load(), "nobody is told before the end")
					}
					return nil
				}))
				synctest.Wait()
				for i := range told {
					require.Equal(t, i != first && i != second, told[i].Load() == 1, "%d of %d and %d", i, first, second)
					require.False(t, stops[i](), "too late")
				}
			})
		}
	}
}

func TestAFunctionAfterTheEndIsCalledAtOnce(t *testing.T) {
	var kept context.Context
	require.NoError(t, minute().Do(t.Context(), func(ctx context.Context) error { kept = ctx; return nil }))
	called := make(chan struct{})
	stop := afterFunc(kept, t, func() { close(called) })
	<-called
	require.False(t, stop())
}

// counted is a context of somebody else that counts who watches it.
type counted struct {
	context.Context
	done     chan struct{}
	watching atomic.Int64
	onWatch  func()
}

func (c *counted) Done() <-chan struct{} { return c.done }
func (c *counted) Value(any) any         { return nil }
func (c *counted) AfterFunc(func()) func() bool {
	c.onWatch()
	c.watching.Add(1)
	return func() bool { c.watching.Add(-1); return true }
}

func TestACallThatReturnsStopsWatchingItsCaller(t *testing.T) {
	parent := &counted{Context: t.Context(), done: make(chan struct{}), onWatch: func() {}}
	require.NoError(t, minute().Do(parent, func(ctx context.Context) error {
		require.Zero(t, parent.watching.Load(), "nobody waits yet")
		require.False(t, isDone(ctx))
		require.EqualValues(t, 1, parent.watching.Load())
		return nil
	}))
	require.Zero(t, parent.watching.Load())
}

func TestACallThatReturnsWhileItBeginsToWatchItsCallerStops(t *testing.T) {
	begun, returned := make(chan struct{}), make(chan struct{})
	parent := &counted{Context: t.Context(), done: make(chan struct{}), onWatch: func() { close(begun); <-returned }}
	var left sync.WaitGroup
	require.NoError(t, minute().Do(parent, func(ctx context.Context) error {
		left.Go(func() {
			for ctx.Err() == nil { // often enough for a timer
			}
		})
		<-begun
		return nil
	}))
	close(returned)
	left.Wait()
	require.Zero(t, parent.watching.Load())
}

// What a call had in its context must not stay in memory as long as the caller's.
func TestACallThatReturnsLeavesNothingBehind(t *testing.T) {
	forgotten := func(parent context.Context) weak.Pointer[[1024]byte] {
		large := &[1024]byte{}
		require.NoError(t, minute().Do(context.WithValue(parent, key{}, large), func(ctx context.Context) error {
			require.False(t, isDone(ctx))
			return nil
		}))
		return weak.Make(large)
	}
	// The earlier deadline is the caller's: a timer that was stopped stays in the runtime's heap for a while.
	parent, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	total := timeout.New(timeout.Config{After: 30 * time.Second})
	require.NoError(t, total.Do(t.Context(), func(inTotal context.Context) error {
		for name, parent := range map[string]context.Context{"package context": parent, "another timeout": inTotal} {
			p := forgotten(parent)
			runtime.GC()
			require.Nil(t, p.Value(), name)
		}
		return nil
	}))
}

// All ways to wait for a context begin at the moment the call returns: none waits for ever, and no function is called twice.
func TestWatchingAContextInEveryWayWhileTheCallReturns(t *testing.T) {
	total := timeout.New(timeout.Config{After: time.Hour})
	var left sync.WaitGroup
	for range 500 {
		parent, cancel := context.WithCancel(t.Context())
		require.NoError(t, total.Do(parent, func(ctx context.Context) error {
			left.Go(func() { _ = minute().Do(ctx, hang) })
			left.Go(func() {
				called := make(chan struct{})
				context.AfterFunc(ctx, func() { close(called) }) // twice would panic
				<-called
			})
			left.Go(func() {
				child, cancel := context.WithCancel(context.WithValue(ctx, key{}, 7))
				defer cancel()
				<-child.Done()
			})
			left.Go(func() {
				stop := context.AfterFunc(ctx, func() {})
				stop()
			})
			left.Go(cancel)
			return nil
		}))
	}
	left.Wait()
}

func TestACallThatWaitsAllocatesLessThanThatOfTheStandardLibrary(t *testing.T) {
	waits := func(ctx context.Context, n int) (int, error) { return n, errOf(isDone(ctx)) }
	one := timeout.Wrap(minute(), waits)
	two := timeout.Wrap(timeout.New(timeout.Config{After: time.Hour}), one)
	ctx := context.Background()
	require.LessOrEqual(t, testing.AllocsPerRun(200, func() { _, _ = one(ctx, 1) }), 4.0)
	require.LessOrEqual(t, testing.AllocsPerRun(200, func() { _, _ = two(ctx, 1) }), 8.0)
}

func errOf(done bool) error {
	if done {
		return context.Canceled
	}
	return nil
}
