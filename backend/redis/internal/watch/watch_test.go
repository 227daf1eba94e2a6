package watch

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
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a server whose listener can be ended.
type fake struct {
	begun, running atomic.Int64
	notices        *Notices
	end            chan error
}

func newFake() *fake { return &fake{end: make(chan error)} }

func (f *fake) listen(ctx context.Context, n *Notices) error {
	f.begun.Add(1)
	f.running.Add(1)
	defer f.running.Add(-1)
	f.notices = n
	n.Lost()
	select {
	case err := <-f.end:
		return err
	case <-ctx.Done():
		time.Sleep(time.Millisecond) // virtual: closing a connection takes its time
		return ctx.Err()
	}
}

// run starts Run.
func run(t *testing.T, list func() map[string]Listener, changed func(string), lost func()) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, func(context.Context) map[string]Listener { return list() }, changed, lost)
	}()
	return func() error {
		cancel()
		return <-ended
	}
}

func only(f *fake) func() map[string]Listener {
	return func() map[string]Listener { return map[string]Listener{"a": f.listen} }
}

func TestServersThatComeAndGoAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newFake(), newFake()
		var moved atomic.Bool
		list := func() map[string]Listener {
			if moved.Load() {
				return map[string]Listener{"b": b.listen}
			}
			return map[string]Listener{"a": a.listen}
		}
		lost := 0
		stop := run(t, list, func(string) {}, func() { lost++ })
		synctest.Wait()
		moved.Store(true)
		time.Sleep(Every + time.Millisecond)
		synctest.Wait()
		require.EqualValues(t, 0, a.running.Load())
		require.EqualValues(t, 1, b.running.Load())
		require.Equal(t, 2, lost)
		require.ErrorIs(t, stop(), context.Canceled)
		require.EqualValues(t, 0, b.running.Load(), "Run returned before its listeners")
	})
}

func TestALostServerIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake()
		stop := run(t, only(a), func(string) {}, func() {})
		for try := int64(1); try <= 3; try++ {
			synctest.Wait()
			require.Equal(t, try, a.begun.Load())
			a.end <- errors.New("lost")
			time.Sleep(Every)
		}
		require.ErrorIs(t, stop(), context.Canceled)
	})
}

func TestUnsupportedEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newFake(), newFake()
		ended := make(chan error)
		go func() {
			list := func(context.Context) map[string]Listener { return map[string]Listener{"a": a.listen, "b": b.listen} }
			ended <- Run(t.Context(), list, func(string) {}, func() {})
		}()
		a.end <- ErrUnsupported
		require.ErrorIs(t, <-ended, ErrUnsupported)
		require.EqualValues(t, 0, b.running.Load())
	})
}

func TestNoCallIsMadeAfterRunHasReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake()
		calls := 0
		stop := run(t, only(a), func(string) { calls++ }, func() { calls++ })
		synctest.Wait()
		a.notices.Changed("x", "y")
		require.ErrorIs(t, stop(), context.Canceled)
		require.Equal(t, 3, calls)
		a.notices.Changed("x")
		a.notices.Lost()
		require.Equal(t, 3, calls)
	})
}

func TestCallsAreMadeOneAtATime(t *testing.T) {
	var calling atomic.Bool
	alone := func() {
		if !calling.CompareAndSwap(false, true) {
			t.Error("two calls at a time")
		}
		runtime.Gosched()
		calling.Store(false)
	}
	n := Notices{changed: func(string) { alone() }, lost: alone}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 100 {
				n.Changed("x", "y")
				n.Lost()
			}
		})
	}
	group.Wait()
}
