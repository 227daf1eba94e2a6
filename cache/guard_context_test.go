package cache

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

type traceKey struct{}

func TestCallContextEndsAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithTimeout(context.WithValue(t.Context(), traceKey{}, 7), time.Minute)
		defer cancel()
		c := &callContext{Context: parent, limit: time.Second}
		defer c.release()
		require.Equal(t, 7, c.Value(traceKey{}))
		began := time.Now()
		require.NoError(t, c.Err())
		deadline, ok := c.Deadline()
		require.True(t, ok)
		require.Equal(t, began.Add(time.Second), deadline)
		<-c.Done()
		require.Equal(t, time.Second, time.Since(began))
		require.ErrorIs(t, c.Err(), context.DeadlineExceeded)
		require.Equal(t, 7, c.Value(traceKey{}))
		require.NoError(t, parent.Err())
	})
}

func TestCallContextEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancelCause(t.Context())
		c := &callContext{Context: parent, limit: time.Second}
		defer c.release()
		time.AfterFunc(time.Millisecond, func() { cancel(errDown) })
		began := time.Now()
		<-c.Done()
		require.Equal(t, time.Millisecond, time.Since(began))
		require.ErrorIs(t, c.Err(), context.Canceled)
		require.ErrorIs(t, context.Cause(c), errDown)
	})
}

// A driver derives contexts of its own. The standard library starts a goroutine for each whose parent it does not know.
func TestCallContextIsOneTheStandardLibraryKnows(t *testing.T) {
	for _, lease := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := &callContext{Context: t.Context(), limit: time.Second, lease: lease}
			defer c.release()
			before := runtime.NumGoroutine()
			derived, cancel := context.WithTimeout(c, time.Minute)
			defer cancel()
			stop := context.AfterFunc(derived, func() {})
			defer stop()
			require.LessOrEqual(t, runtime.NumGoroutine(), before)
			began := time.Now()
			<-derived.Done()
			require.Equal(t, time.Second, time.Since(began))
		})
	}
}

func TestCallContextOfALeaseShowsTheCallersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load := within(t, time.Minute)
		c := &callContext{Context: load, limit: time.Second, lease: true}
		defer c.release()
		want, _ := load.Deadline()
		began := time.Now()
		<-c.Done()
		require.Equal(t, time.Second, time.Since(began))
		got, _ := c.Deadline()
		require.Equal(t, want, got)
		require.ErrorIs(t, c.Err(), context.DeadlineExceeded)
	})
}

func TestCallContextMayBeUsedConcurrently(t *testing.T) {
	c := &callContext{Context: t.Context(), limit: time.Hour}
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			c.Value(traceKey{})
			c.Deadline()
			<-c.Done()
		})
	}
	for c.Err() == nil {
		c.release()
	}
	users.Wait()
	require.ErrorIs(t, c.Err(), context.Canceled)
}
