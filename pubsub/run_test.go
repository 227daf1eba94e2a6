package pubsub_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		for _, ordered := range []bool{false, true} {
			d := newScripted(pubsub.Capabilities{Ordered: true, DelayedNack: true})
			var ctxErr error
			var value any
			s := pubsub.Subscription{Topic: "t", Group: "g", Concurrency: 1, Ordered: ordered}
			c, err := pubsub.New(d).Open(t.Context(), s)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "kept"))
			result := make(chan error, 1)
			go func() {
				result <- c.Run(ctx, func(ctx context.Context, m pubsub.Message) error {
					take(10 * time.Second)
					ctxErr, value = ctx.Err(), ctx.Value(key{})
					return nil
				})
			}()
			d.deliver(1, "a1", "a2")
			synctest.Wait()
			cancel()
			synctest.Wait()
			if ordered {
				require.Empty(t, d.given(), "a2 must not overtake a1")
			} else {
				require.Equal(t, []pubsub.Verdict{nack("a2", 0)}, d.given(), "others may have it at once")
			}
			require.NoError(t, <-result)
			require.ElementsMatch(t, []pubsub.Verdict{nack("a2", 0), ack("a1")}, d.given())
			require.NoError(t, ctxErr, "a running handler is not cancelled")
			require.Equal(t, "kept", value)
			require.ErrorIs(t, c.Run(t.Context(), succeed), pubsub.ErrClosed)
		}
	})
}

func TestDrainTimeoutDoesNotWaitForDeafHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		release := make(chan struct{})
		var cause error
		_, stop := start(t, d, pubsub.Subscription{DrainTimeout: 5 * time.Second, HandleTimeout: -1}, func(ctx context.Context, m pubsub.Message) error {
			if m.ID == "polite" {
				<-ctx.Done()
				cause = context.Cause(ctx)
				return ctx.Err()
			}
			<-release
			return nil
		})
		d.deliver(1, "polite", "deaf")
		synctest.Wait()
		begun := time.Now()
		require.ErrorIs(t, stop(), pubsub.ErrDrainTimeout)
		require.LessOrEqual(t, time.Since(begun), 7*time.Second)
		require.ErrorIs(t, cause, pubsub.ErrDrainTimeout)
		require.Len(t, d.given(), 2)
		for _, v := range d.given() {
			require.Equal(t, pubsub.Nack, v.Kind)
		}
		close(release)
		synctest.Wait()
		require.Len(t, d.given(), 2, "too late for an ack")
	})
}

func TestSettleIsRepeatedWhileTheLeaseLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		away := time.Now().Add(2 * time.Second)
		d.settle = func(context.Context, []pubsub.Verdict) error {
			if time.Now().Before(away) {
				return errBoom
			}
			return nil
		}
		c, stop := start(t, d, pubsub.Subscription{Lease: 5 * time.Second}, succeed)
		d.deliver(1, "m")
		elapse(3 * time.Second)
		require.Equal(t, []pubsub.Verdict{ack("m")}, d.given())
		require.Positive(t, c.Stats().SettleFailed)
		away = time.Now().Add(time.Minute)
		d.deliver(1, "n")
		elapse(2 * time.Minute)
		require.Len(t, d.given(), 1)
		require.EqualValues(t, 1, c.Stats().LeasesLost)
		require.NoError(t, stop())
	})
}

func TestReceiveErrorEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		c, err := pubsub.New(d).Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"})
		require.NoError(t, err)
		d.receiveErr <- errBoom
		require.ErrorIs(t, c.Run(t.Context(), succeed), errBoom)
		require.NoError(t, c.Close())
		require.Equal(t, 1, d.closed)
	})
}

func TestBusCloseDrainsConsumers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := mempubsub.New(mempubsub.Config{})
		bus := pubsub.New(mem)
		c, err := bus.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"})
		require.NoError(t, err)
		result := make(chan error, 1)
		go func() {
			result <- c.Run(t.Context(), func(ctx context.Context, m pubsub.Message) error {
				take(time.Second)
				return bus.Publish(ctx, pubsub.Message{Topic: "next"}) // a handler may publish to its end
			})
		}()
		require.NoError(t, bus.Publish(t.Context(), pubsub.Message{Topic: "t"}))
		synctest.Wait()
		require.NoError(t, bus.Close())
		require.NoError(t, <-result)
		require.EqualValues(t, 1, c.Stats().Handled)
		require.ErrorIs(t, bus.Publish(t.Context(), pubsub.Message{Topic: "t"}), pubsub.ErrClosed)
		_, err = bus.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"})
		require.ErrorIs(t, err, pubsub.ErrClosed)
		require.NoError(t, bus.Close())
	})
}

func TestIntakeStopsWhenTooMuchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(pubsub.Capabilities{}) // backoff is local: what fails stays here
		s := pubsub.Subscription{Concurrency: 2, LaneDepth: 5}
		c, stop := start(t, d, s, func(context.Context, pubsub.Message) error { return pubsub.RetryAfter(time.Hour, errBoom) })
		for range 50 {
			d.deliver(1, "m")
		}
		synctest.Wait()
		require.LessOrEqual(t, c.Stats().Waiting, 5+4)
		elapse(100 * time.Hour)
		require.EqualValues(t, 50, c.Stats().DeadLettered)
		require.NoError(t, stop())
	})
}

func TestIntakeStopsWhenVerdictsAreNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		d.settle = func(ctx context.Context, _ []pubsub.Verdict) error {
			<-ctx.Done()
			return ctx.Err()
		}
		c, stop := start(t, d, pubsub.Subscription{Concurrency: 1}, succeed)
		for range 900 {
			d.deliver(1, "m")
		}
		synctest.Wait()
		require.Less(t, c.Stats().Received, int64(300))
		require.Error(t, stop())
	})
}

// A driver may confirm acknowledgements late, at the latest when its receiver closes. Whoever stops has to hear that it could not.
func TestAcknowledgementsThatCloseCannotConfirmAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		d.closeErr = fmt.Errorf("the connection is lost: %w", pubsub.ErrInDoubt)
		c, stop := start(t, d, pubsub.Subscription{}, succeed)
		d.deliver(1, "a1")
		synctest.Wait()
		require.Equal(t, []pubsub.Verdict{ack("a1")}, d.given())
		require.ErrorIs(t, stop(), pubsub.ErrInDoubt, "Run")
		require.ErrorIs(t, c.Close(), pubsub.ErrInDoubt, "Close")
	})
}

func TestBusCloseReportsAcknowledgementsInDoubt(t *testing.T) {
	d := newScripted(delayed)
	d.closeErr = fmt.Errorf("the connection is lost: %w", pubsub.ErrInDoubt)
	bus := pubsub.New(d)
	_, err := bus.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"})
	require.NoError(t, err)
	require.ErrorIs(t, bus.Close(), pubsub.ErrInDoubt)
}
