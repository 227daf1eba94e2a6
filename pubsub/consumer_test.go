package pubsub_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

var delayed = pubsub.Capabilities{DelayedNack: true}

func TestAckOnlyAfterTheHandlerReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		release := make(chan struct{})
		_, stop := start(t, d, pubsub.Subscription{}, func(context.Context, pubsub.Message) error {
			<-release
			return nil
		})
		d.deliver(1, "a")
		synctest.Wait()
		require.Empty(t, d.given())
		close(release)
		synctest.Wait()
		require.Equal(t, []pubsub.Verdict{ack("a")}, d.given())
		require.NoError(t, stop())
		require.Equal(t, 1, d.closed)
	})
}

func TestConcurrencyIsBoundedAndPrefetchFollowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		var running, peak atomic.Int32
		c, stop := start(t, d, pubsub.Subscription{Concurrency: 3}, func(context.Context, pubsub.Message) error {
			peak.Store(max(peak.Load(), running.Add(1)))
			take(time.Second)
			running.Add(-1)
			return nil
		})
		synctest.Wait()
		before := runtime.NumGoroutine()
		for i := range 40 {
			d.deliver(1, fmt.Sprint("m", i))
		}
		synctest.Wait()
		require.EqualValues(t, 3, running.Load())
		require.LessOrEqual(t, c.Stats().Held, 6)
		require.LessOrEqual(t, runtime.NumGoroutine(), before+3)
		elapse(time.Minute)
		require.EqualValues(t, 3, peak.Load())
		require.Len(t, d.given(), 40)
		for _, n := range d.asked {
			require.LessOrEqual(t, n, 6)
		}
		require.NoError(t, stop())
	})
}

func TestErrorNacksWithJitteredBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		s := pubsub.Subscription{BackoffInitial: time.Second, BackoffMax: 3 * time.Second}
		var retried []pubsub.Retried
		_, stop := start(t, d, s, func(context.Context, pubsub.Message) error { return errBoom },
			pubsub.OnRetry(func(r pubsub.Retried) { retried = append(retried, r) }))
		var longest [5]time.Duration
		shortest := time.Hour
		for range 200 {
			for attempt := 1; attempt <= 4; attempt++ {
				d.deliver(attempt, "m")
				synctest.Wait()
				last := d.given()[len(d.given())-1]
				require.Equal(t, pubsub.Nack, last.Kind)
				shortest = min(shortest, last.Delay)
				longest[attempt] = max(longest[attempt], last.Delay)
			}
		}
		for attempt, bound := range []time.Duration{1: time.Second, 2: 2 * time.Second, 3: 3 * time.Second, 4: 3 * time.Second} {
			require.LessOrEqual(t, longest[attempt], bound)
			require.GreaterOrEqual(t, longest[attempt], bound*8/10, "attempt %d", attempt)
		}
		require.Less(t, shortest, 200*time.Millisecond)
		require.Len(t, retried, 800)
		require.ErrorIs(t, retried[0].Err, errBoom)
		require.NoError(t, stop())
	})
}

func TestRetryAfterSetsTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		_, stop := start(t, d, pubsub.Subscription{}, func(context.Context, pubsub.Message) error {
			return fmt.Errorf("wrapped: %w", pubsub.RetryAfter(7*time.Second, errBoom))
		})
		d.deliver(1, "m")
		synctest.Wait()
		require.Equal(t, []pubsub.Verdict{nack("m", 7*time.Second)}, d.given())
		require.NoError(t, stop())
	})
}

func TestNegativeBackoffRetriesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		_, stop := start(t, d, pubsub.Subscription{BackoffInitial: -1, MaxAttempts: -1}, func(context.Context, pubsub.Message) error { return errBoom })
		d.deliver(1_000_000, "m")
		synctest.Wait()
		require.Equal(t, []pubsub.Verdict{nack("m", 0)}, d.given())
		require.NoError(t, stop())
	})
}

func TestPanicAndGoexitAreFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		var errs []error
		c, stop := start(t, d, pubsub.Subscription{Concurrency: 1}, func(_ context.Context, m pubsub.Message) error {
			switch m.ID {
			case "panic":
				panic(errBoom)
			case "exit":
				runtime.Goexit()
			}
			return nil
		}, pubsub.OnRetry(func(r pubsub.Retried) { errs = append(errs, r.Err) }))
		d.deliver(1, "panic", "exit")
		d.deliver(1, "fine")
		synctest.Wait()
		require.Len(t, d.given(), 3)
		require.Equal(t, ack("fine"), d.given()[2])
		require.ErrorIs(t, errs[0], errBoom)
		require.ErrorContains(t, errs[0], "consumer_test.go") // the stack
		require.ErrorContains(t, errs[1], "Goexit")
		require.EqualValues(t, 2, c.Stats().Failed)
		require.NoError(t, stop())
	})
}

func TestGivenBackDeliveriesDoNotCondemnAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		c, stop := start(t, d, pubsub.Subscription{MaxAttempts: 3}, succeed)
		d.deliver(5, "m")
		synctest.Wait()
		require.EqualValues(t, 1, c.Stats().Handled)
		require.NoError(t, stop())
	})
}

func TestUsedUpAttemptsAreNotHandledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a message that kills the process before any verdict
		d := newScripted(delayed)
		var letters []pubsub.Message
		d.publish = func(m []pubsub.Message) []error { letters = append(letters, m...); return nil }
		_, stop := start(t, d, pubsub.Subscription{MaxAttempts: 3}, func(context.Context, pubsub.Message) error {
			t.Error("handled")
			return nil
		})
		d.deliver(7, "m")
		synctest.Wait()
		require.Equal(t, []pubsub.Verdict{ack("m")}, d.given())
		require.Len(t, letters, 1)
		require.Equal(t, "6", letters[0].Header[pubsub.HeaderAttempts])
		require.NoError(t, stop())
	})
}

func TestDeadLetterHasTheFirstError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		var letter pubsub.Message
		d.publish = func(m []pubsub.Message) []error { letter = m[0]; return nil }
		_, stop := start(t, d, pubsub.Subscription{MaxAttempts: 2}, func(_ context.Context, m pubsub.Message) error {
			return fmt.Errorf("failure\r\n%d\xff", m.Attempt)
		})
		d.deliver(1, "m")
		synctest.Wait()
		d.deliver(2, "m")
		synctest.Wait()
		require.Equal(t, "failure 1", letter.Header[pubsub.HeaderFirstError])
		require.Equal(t, "failure 2", letter.Header[pubsub.HeaderLastError])
		require.Equal(t, pubsub.DeadLetterTopic("t", "g"), letter.Topic)
		require.NoError(t, stop())
	})
}

func TestFailedDeadLetterIsNeverAcked(t *testing.T) {
	for _, caps := range []pubsub.Capabilities{delayed, {}} {
		t.Run(fmt.Sprint(caps.DelayedNack), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newScripted(caps)
				var tries int
				d.publish = func(m []pubsub.Message) []error {
					if tries++; tries <= 3 {
						return []error{errBoom}
					}
					return nil
				}
				var runs int
				_, stop := start(t, d, pubsub.Subscription{}, func(context.Context, pubsub.Message) error {
					runs++
					return pubsub.DeadLetter(errBoom)
				})
				d.deliver(1, "m")
				synctest.Wait()
				if caps.DelayedNack {
					require.Len(t, d.given(), 1)
					require.Equal(t, pubsub.Nack, d.given()[0].Kind)
					for attempt := 2; attempt <= 4; attempt++ {
						d.deliver(attempt, "m")
						synctest.Wait()
					}
					require.Equal(t, ack("m"), d.given()[3])
					require.Equal(t, 1, runs, "the handler has said its word")
					require.NoError(t, stop())
					return
				}
				elapse(time.Minute)
				require.Equal(t, []pubsub.Verdict{ack("m")}, d.given())
				require.Equal(t, 4, tries)
				require.Equal(t, 1, runs, "the handler has said its word")
				require.NoError(t, stop())
			})
		})
	}
}

func TestLeasesAreExtendedWhileHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := mempubsub.New(mempubsub.Config{})
		s := pubsub.Subscription{Topic: "t", Group: "g", Lease: time.Second, Concurrency: 1, HandleTimeout: time.Hour}
		var runs atomic.Int32
		slow := func(context.Context, pubsub.Message) error {
			runs.Add(1)
			take(20 * time.Second)
			return nil
		}
		_, stopA := start(t, mem, s, slow)
		_, stopB := start(t, mem, s, slow)
		bus := pubsub.New(mem)
		for range 6 {
			require.NoError(t, bus.Publish(t.Context(), pubsub.Message{Topic: "t"}))
		}
		elapse(2 * time.Minute)
		require.EqualValues(t, 6, runs.Load())
		require.Zero(t, mem.Stats().LeasesExpired)
		require.Zero(t, mem.Stats().Pending)
		require.NoError(t, stopA())
		require.NoError(t, stopB())
	})
}

func TestLeaseOfAHungHandlerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		s := pubsub.Subscription{Lease: 3 * time.Second, HandleTimeout: 10 * time.Second, DrainTimeout: time.Second}
		release := make(chan struct{})
		var expired time.Time
		c, stop := start(t, d, s, func(ctx context.Context, _ pubsub.Message) error {
			<-ctx.Done()
			expired = time.Now()
			<-release // deaf
			return errBoom
		})
		begun := time.Now()
		d.deliver(1, "m")
		elapse(time.Minute)
		require.Equal(t, 10*time.Second, expired.Sub(begun))
		require.EqualValues(t, 1, c.Stats().LeasesLost)
		require.InDelta(t, 10, d.extended, 1)
		close(release)
		synctest.Wait()
		require.Empty(t, d.given(), "the verdict is another member's now")
		require.NoError(t, stop())
	})
}

func TestOrderedBackoffTakesNoSlotAndHoldsItsKeyOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(pubsub.Capabilities{Ordered: true})
		var mu sync.Mutex
		var seen []string
		s := pubsub.Subscription{Ordered: true, Concurrency: 1, BackoffInitial: time.Minute, BackoffMax: time.Minute}
		c, stop := start(t, d, s, func(_ context.Context, m pubsub.Message) error {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, fmt.Sprint(m.ID, "/", m.Attempt))
			if m.ID == "a1" && m.Attempt < 3 {
				return errBoom
			}
			return nil
		})
		d.deliver(1, "a1", "a2", "b1")
		d.deliver(1, "a3", "b2")
		synctest.Wait()
		require.Equal(t, []string{"a1/1", "b1/1", "b2/1"}, seen)
		require.Equal(t, []pubsub.Verdict{ack("b1"), ack("b2")}, d.given())
		require.Equal(t, 3, c.Stats().Waiting)
		elapse(time.Hour)
		require.Equal(t, []string{"a1/1", "b1/1", "b2/1", "a1/2", "a1/3", "a2/1", "a3/1"}, seen)
		require.Equal(t, []pubsub.Verdict{ack("b1"), ack("b2"), ack("a1"), ack("a2"), ack("a3")}, d.given())
		require.NoError(t, stop())
	})
}

func TestOrderedKeyGoesOnAfterADeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(pubsub.Capabilities{Ordered: true})
		s := pubsub.Subscription{Ordered: true, MaxAttempts: 2}
		_, stop := start(t, d, s, func(_ context.Context, m pubsub.Message) error {
			if m.ID == "a1" {
				return errBoom
			}
			return nil
		})
		d.deliver(1, "a1", "a2")
		elapse(time.Minute)
		require.Equal(t, []pubsub.Verdict{ack("a1"), ack("a2")}, d.given())
		require.NoError(t, stop())
	})
}

func TestLostLeaseDropsTheWholeLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(pubsub.Capabilities{Ordered: true})
		d.settle = func(context.Context, []pubsub.Verdict) error { return errBoom } // the broker is away
		d.epoch = 1
		var mu sync.Mutex
		var seen []string
		s := pubsub.Subscription{Ordered: true, Lease: 3 * time.Second, BackoffInitial: time.Hour, BackoffMax: time.Hour}
		c, stop := start(t, d, s, func(_ context.Context, m pubsub.Message) error {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, fmt.Sprint(m.ID, "/", m.Attempt))
			if m.ID == "a1" && m.Attempt == 1 {
				return pubsub.RetryAfter(time.Hour, errBoom)
			}
			return nil
		})
		d.deliver(1, "a1", "a2", "a3")
		elapse(5 * time.Second)
		require.EqualValues(t, 3, c.Stats().LeasesLost)
		d.deliver(1, "a4") // the broker does not know yet
		synctest.Wait()
		require.Equal(t, []string{"a1/1"}, seen)
		d.epoch = 2
		d.deliver(2, "a1", "a2", "a3") // the broker does as it must
		synctest.Wait()
		require.Equal(t, []string{"a1/1", "a1/2", "a2/2", "a3/2"}, seen)
		_ = stop()
	})
}

func TestReconfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		var running atomic.Int32
		c, stop := start(t, d, pubsub.Subscription{Concurrency: 2}, func(context.Context, pubsub.Message) error {
			running.Add(1)
			defer running.Add(-1)
			take(time.Second)
			return nil
		})
		require.NoError(t, c.Reconfigure(c.Config()))
		for i := range 30 {
			d.deliver(1, fmt.Sprint("m", i))
		}
		synctest.Wait()
		require.EqualValues(t, 2, running.Load())
		s := c.Config()
		s.Concurrency = 5
		require.NoError(t, c.Reconfigure(s))
		synctest.Wait()
		require.EqualValues(t, 5, running.Load())
		before := runtime.NumGoroutine()
		s.Concurrency = 1
		require.NoError(t, c.Reconfigure(s))
		elapse(1500 * time.Millisecond)
		require.EqualValues(t, 1, running.Load())
		require.LessOrEqual(t, runtime.NumGoroutine(), before-3, "workers end: 5 or 6 become 1 or 2")
		for field, change := range map[string]func(*pubsub.Subscription){
			"Topic":     func(s *pubsub.Subscription) { s.Topic = "x" },
			"Group":     func(s *pubsub.Subscription) { s.Group = "x" },
			"Ordered":   func(s *pubsub.Subscription) { s.Ordered = true },
			"Start":     func(s *pubsub.Subscription) { s.Start = "start" },
			"Lease":     func(s *pubsub.Subscription) { s.Lease++ },
			"LaneDepth": func(s *pubsub.Subscription) { s.LaneDepth++ },
			"Temporary": func(s *pubsub.Subscription) { s.Temporary = true },
			"HoldKey":   func(s *pubsub.Subscription) { s.Ordered, s.HoldKey = true, true },
		} {
			changed := c.Config()
			change(&changed)
			require.ErrorContains(t, c.Reconfigure(changed), field)
		}
		require.Error(t, c.Reconfigure(pubsub.Subscription{}))
		require.NoError(t, stop())
	})
}

func TestMissingCapabilitiesAreRefused(t *testing.T) {
	bus := pubsub.New(newScripted(pubsub.Capabilities{}))
	_, err := bus.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Ordered: true})
	var ce *pubsub.CapabilityError
	require.ErrorAs(t, err, &ce)
	require.Equal(t, pubsub.CapabilityError{Driver: "scripted", Capability: "Ordered"}, *ce)
	require.ErrorIs(t, err, pubsub.ErrUnsupported)
	_, err = bus.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Start: "start"})
	require.ErrorIs(t, err, pubsub.ErrUnsupported)
}

func TestObservability(t *testing.T) {
	c, err := pubsub.New(newScripted(delayed)).Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"})
	require.NoError(t, err)
	kind, name, config := c.Describe()
	require.Equal(t, "pubsub.consumer", kind)
	require.Equal(t, "t/g", name)
	require.Equal(t, c.Config(), config)
	var names []string
	for name := range c.Metrics() {
		names = append(names, name)
	}
	require.Contains(t, names, "dead_lettered_total")
	for range c.Metrics() {
		break
	}
	require.Error(t, c.Run(t.Context(), nil))
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Run(t.Context(), succeed), pubsub.ErrClosed)
}
