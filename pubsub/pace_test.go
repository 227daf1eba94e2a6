package pubsub_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

var inline = pubsub.Capabilities{DelayedNack: true, SettleDoesNotBlock: true}

// A handler that used to be quick and then is not strands nothing: neither what was received with its message, nor the
// verdicts on what was handled before, nor what is published meanwhile.
func TestAHandlerThatTurnsSlowStrandsNothing(t *testing.T) {
	for _, caps := range []pubsub.Capabilities{delayed, inline} {
		synctest.Test(t, func(t *testing.T) {
			d := newScripted(caps)
			release := make(chan struct{})
			c, stop := start(t, d, pubsub.Subscription{Concurrency: 2}, func(_ context.Context, m pubsub.Message) error {
				if m.ID == "slow" {
					<-release
				}
				return nil
			})
			const quick = 40
			for i := range quick {
				d.deliver(1, fmt.Sprint("quick", i))
				synctest.Wait()
			}
			require.Len(t, d.given(), quick)
			d.deliver(1, "before", "slow", "after")
			elapse(5 * time.Millisecond)
			require.ElementsMatch(t, []pubsub.Verdict{ack("before"), ack("after")}, d.given()[quick:])
			d.deliver(1, "later")
			elapse(5 * time.Millisecond)
			require.ElementsMatch(t, []pubsub.Verdict{ack("before"), ack("after"), ack("later")}, d.given()[quick:])
			require.Equal(t, 1, c.Stats().InFlight)
			close(release)
			require.NoError(t, stop())
			require.Len(t, d.given(), quick+4)
		})
	}
}

// All handlers run at once however quick those before them were.
func TestSlowHandlersAfterQuickOnesUseAllSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(inline)
		slow := false
		c, stop := start(t, d, pubsub.Subscription{Concurrency: 5}, func(context.Context, pubsub.Message) error {
			if slow {
				take(time.Second)
			}
			return nil
		})
		for range 40 {
			d.deliver(1, "m")
			synctest.Wait()
		}
		slow = true
		d.deliver(1, "a", "b", "c", "d", "e", "f")
		elapse(5 * time.Millisecond)
		require.Equal(t, 5, c.Stats().InFlight)
		require.NoError(t, stop())
	})
}

// The others come soon, however long nobody was busy before the handler that turns slow.
func TestAHandlerThatTurnsSlowAfterAPauseStrandsNothing(t *testing.T) {
	for _, pause := range []time.Duration{0, 300 * time.Microsecond, 2500 * time.Microsecond, 7900 * time.Microsecond, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			d := newScripted(inline)
			release := make(chan struct{})
			_, stop := start(t, d, pubsub.Subscription{Concurrency: 2}, func(_ context.Context, m pubsub.Message) error {
				if m.ID == "slow" {
					<-release
				}
				return nil
			})
			const quick = 40
			for range quick {
				d.deliver(1, "m")
				synctest.Wait()
			}
			elapse(pause)
			d.deliver(1, "slow", "after")
			elapse(2 * time.Millisecond)
			require.Equal(t, []pubsub.Verdict{ack("after")}, d.given()[quick:], pause)
			close(release)
			require.NoError(t, stop())
		})
	}
}

// A Settle that fails on the goroutine of a handler is repeated, and none begins once Run has returned or beside another.
func TestSettleOnTheHandlersGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(inline)
		var calls, running atomic.Int32
		d.settle = func(context.Context, []pubsub.Verdict) error {
			if running.Add(1) > 1 {
				t.Error("two calls of Settle at a time")
			}
			defer running.Add(-1)
			if calls.Add(1)%3 == 1 {
				return errBoom
			}
			return nil
		}
		c, stop := start(t, d, pubsub.Subscription{}, func(context.Context, pubsub.Message) error {
			take(time.Millisecond)
			return nil
		})
		const n = 100
		for i := range n {
			d.deliver(1, fmt.Sprint("m", i))
		}
		elapse(10 * time.Second)
		require.Len(t, d.given(), n)
		require.Positive(t, c.Stats().SettleFailed)
		require.NoError(t, stop())
		before := calls.Load()
		elapse(time.Minute)
		require.Equal(t, before, calls.Load())
	})
}

// What is used again must not show through: messages that come later are as they were delivered.
func TestReusedRecordsKeepMessagesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(inline)
		const n = 500
		seen := make(map[string]bool, n)
		var wrong []string
		_, stop := start(t, d, pubsub.Subscription{Concurrency: 1, MaxAttempts: 3, BackoffInitial: -1}, func(_ context.Context, m pubsub.Message) error {
			if string(m.Payload) != m.ID || m.Header["id"] != m.ID || m.Attempt != 1 {
				wrong = append(wrong, fmt.Sprint(m))
			}
			seen[m.ID] = true
			switch m.ID[len(m.ID)-1] {
			case '3':
				return pubsub.DeadLetter(errBoom)
			case '5':
				return errBoom
			case '7':
				return refusal{}
			}
			return nil
		})
		for i := range n {
			id := fmt.Sprint("m", i)
			m := pubsub.Message{ID: id, Topic: "t", Header: pubsub.Header{"id": id}, Payload: []byte(id), Attempt: 1}
			d.deliveries <- []pubsub.Delivery{{Message: m, Token: id}}
		}
		elapse(20 * time.Millisecond)
		require.Empty(t, wrong)
		require.Greater(t, len(seen), n/2)
		require.NoError(t, stop())
	})
}
