package pubsub

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHandlerContextIsAContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		base, cancelBase := context.WithCancelCause(context.WithValue(t.Context(), key{}, 1))
		made := func() *deadline { return &deadline{parent: base, at: time.Now().Add(time.Minute)} }

		d := made()
		require.Equal(t, 1, d.Value(key{}))
		require.NoError(t, d.Err())
		require.Equal(t, 1, d.Value(key{}))
		at, ok := d.Deadline()
		require.True(t, ok)
		before := runtime.NumGoroutine()
		child, cancel := context.WithCancel(d)
		require.Equal(t, before, runtime.NumGoroutine(), "children cost no goroutine")
		<-child.Done()
		require.ErrorIs(t, d.Err(), context.DeadlineExceeded)
		require.ErrorIs(t, child.Err(), context.DeadlineExceeded)
		require.ErrorIs(t, context.Cause(d), context.DeadlineExceeded)
		require.False(t, time.Now().Before(at))
		cancel()

		late := made()
		late.finish()
		require.ErrorIs(t, late.Err(), context.Canceled)
		early := made()
		stop := context.AfterFunc(early, func() {})
		early.finish()
		synctest.Wait()
		require.False(t, stop())

		boom := errors.New("boom")
		d, unread := made(), made()
		require.NoError(t, d.Err())
		cancelBase(boom)
		for _, ctx := range []*deadline{d, unread} {
			require.ErrorIs(t, ctx.Err(), context.Canceled)
			require.ErrorIs(t, context.Cause(ctx), boom)
			ctx.finish()
		}
	})
}
