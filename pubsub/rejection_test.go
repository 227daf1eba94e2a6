package pubsub_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

// refusal is what a policy returns that did not call the handler.
type refusal struct{ after time.Duration }

func (refusal) Error() string               { return "refused" }
func (refusal) Rejected() bool              { return true }
func (r refusal) RetryAfter() time.Duration { return r.after }

// A policy that is shut for longer than all attempts would last costs no message an attempt, whoever keeps the backoff.
func TestRejectionsAreNoAttempts(t *testing.T) {
	for _, mode := range []struct {
		name    string
		caps    pubsub.Capabilities
		ordered bool
	}{{"backoff of the broker", delayed, false}, {"local backoff", pubsub.Capabilities{}, false}, {"ordered", pubsub.Capabilities{Ordered: true}, true}} {
		t.Run(mode.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newScripted(mode.caps)
				d.epoch = 1
				shut := time.Now().Add(time.Hour)
				attempts := map[int]int{}
				s := pubsub.Subscription{Ordered: mode.ordered, Concurrency: 1, MaxAttempts: 2, BackoffMax: time.Minute, Lease: time.Minute}
				var retried []pubsub.Retried
				c, stop := start(t, d, s, func(_ context.Context, m pubsub.Message) error {
					if m.ID == "other" || time.Now().After(shut) {
						attempts[m.Attempt]++
						return nil
					}
					return refusal{}
				}, pubsub.OnRetry(func(r pubsub.Retried) { retried = append(retried, r) }))
				d.deliver(1, "m", "other")
				synctest.Wait()
				require.Equal(t, []pubsub.Verdict{ack("other")}, d.given(), "a rejected message takes no slot")
				require.Equal(t, 1, c.Stats().Waiting)
				elapse(2 * time.Hour)
				require.Equal(t, map[int]int{1: 2}, attempts)
				require.ElementsMatch(t, []pubsub.Verdict{ack("m"), ack("other")}, d.given(), "it was never given back")
				stats := c.Stats()
				require.EqualValues(t, 2, stats.Handled)
				require.Zero(t, stats.Failed)
				require.Zero(t, stats.LeasesLost)
				require.Greater(t, stats.Rejected, int64(10))
				require.Len(t, retried, int(stats.Rejected))
				require.Equal(t, 1, retried[len(retried)-1].Message.Attempt)
				require.NoError(t, stop())
			})
		})
	}
}

func TestARejectionSaysWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		begun := time.Now()
		var at []time.Duration
		_, stop := start(t, d, pubsub.Subscription{}, func(context.Context, pubsub.Message) error {
			at = append(at, time.Since(begun))
			if len(at) == 1 {
				return refusal{42 * time.Second}
			}
			return nil
		})
		d.deliver(1, "m")
		elapse(time.Minute)
		require.Equal(t, []time.Duration{0, 42 * time.Second}, at)
		require.NoError(t, stop())
	})
}

// Without any backoff a rejected message must not spin.
func TestARejectionWaitsEvenWithoutBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		c, stop := start(t, d, pubsub.Subscription{BackoffInitial: -1}, func(context.Context, pubsub.Message) error { return refusal{} })
		d.deliver(1, "m")
		elapse(time.Second)
		require.InDelta(t, 1000, c.Stats().Rejected, 2)
		require.NoError(t, stop())
		require.Equal(t, []pubsub.Verdict{nack("m", 0)}, d.given())
	})
}

// An error round a rejection is a failure of the handler, which has run.
func TestAWrappedRejectionIsAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, err := range []error{fmt.Errorf("inventory: %w", refusal{}), pubsub.RetryAfter(0, refusal{})} {
			d := newScripted(pubsub.Capabilities{})
			var letters []pubsub.Message
			d.publish = func(msgs []pubsub.Message) []error { letters = append(letters, msgs...); return nil }
			c, stop := start(t, d, pubsub.Subscription{MaxAttempts: 3}, func(context.Context, pubsub.Message) error { return err })
			d.deliver(1, "m")
			elapse(time.Hour)
			require.Len(t, letters, 1)
			require.EqualValues(t, 3, c.Stats().Failed)
			require.Zero(t, c.Stats().Rejected)
			require.NoError(t, stop())
		}
	})
}

// An outage leaves the messages with the broker.
func TestIntakeStopsWhileMessagesAreRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		shut := time.Now().Add(time.Hour)
		c, stop := start(t, d, pubsub.Subscription{Concurrency: 2, LaneDepth: 5}, func(context.Context, pubsub.Message) error {
			if time.Now().Before(shut) {
				return refusal{}
			}
			return nil
		})
		for range 50 {
			d.deliver(1, "m")
		}
		elapse(time.Minute)
		require.LessOrEqual(t, c.Stats().Held, 5+4)
		elapse(2 * time.Hour)
		require.EqualValues(t, 50, c.Stats().Handled)
		require.NoError(t, stop())
	})
}

// In a batch each entry is judged by itself.
func TestRejectedEntriesOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		c, err := pubsub.New(d).Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", MaxAttempts: 1})
		require.NoError(t, err)
		calls := 0
		done := make(chan error, 1)
		go func() {
			done <- c.RunBatch(context.Background(), func(_ context.Context, msgs []pubsub.Message) error {
				calls++
				if calls > 3 {
					return nil
				}
				errs := make(pubsub.BatchErrors, len(msgs))
				errs[0] = refusal{}
				return errs
			})
		}()
		d.deliver(1, "a", "b")
		elapse(time.Hour)
		require.ElementsMatch(t, []pubsub.Verdict{ack("a"), ack("b")}, d.given())
		require.EqualValues(t, 3, c.Stats().Rejected)
		require.NoError(t, c.Close())
		require.NoError(t, <-done)
	})
}
