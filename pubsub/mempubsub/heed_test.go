package mempubsub

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

// A Receive that waits ends with its own context, whichever contexts others had before, and with Close.
func TestReceiveEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{})
		r, err := d.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Lease: time.Minute})
		require.NoError(t, err)
		receive := func(ctx context.Context) <-chan error {
			ended := make(chan error, 1)
			go func() {
				_, err := r.Receive(ctx, 1)
				ended <- err
			}()
			synctest.Wait()
			return ended
		}
		earlier, cancelEarlier := context.WithCancel(t.Context())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancelEarlier()
		for range 2 { // a message comes before the end of either
			ended := receive(earlier)
			require.Nil(t, d.Publish(t.Context(), []pubsub.Message{{Topic: "t"}}))
			require.NoError(t, <-ended)
		}
		ended := receive(ctx)
		cancelEarlier()
		synctest.Wait()
		require.Empty(t, ended, "the end of an earlier context")
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.ErrorIs(t, <-receive(ctx), context.Canceled, "again, with one that has ended")
		require.ErrorIs(t, <-receive(earlier), context.Canceled)

		ended = receive(context.Background())
		require.NoError(t, r.Close())
		require.ErrorIs(t, <-ended, pubsub.ErrClosed)
		require.NoError(t, d.Close())
	})
}

// noted is a context that is not of package context, which has a goroutine wait for it.
type noted struct {
	context.Context
	done chan struct{}
}

func (c noted) Done() <-chan struct{} { return c.done }

// A receiver that is closed heeds nothing: the test would not end with a goroutine that does.
func TestCloseEndsTheHeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{})
		r, err := d.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Lease: time.Minute})
		require.NoError(t, err)
		ctx := noted{context.Background(), make(chan struct{})}
		ended := make(chan error)
		go func() {
			_, err := r.Receive(ctx, 1)
			ended <- err
		}()
		synctest.Wait()
		require.NoError(t, r.Close())
		require.ErrorIs(t, <-ended, pubsub.ErrClosed)
		_, err = r.Receive(noted{context.Background(), make(chan struct{})}, 1)
		require.ErrorIs(t, err, pubsub.ErrClosed)
		require.NoError(t, d.Close())
	})
}
