package pubsub_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// ledger notes what happened to messages by ID.
type ledger struct {
	mu                sync.Mutex
	started, finished map[string]bool
}

func newLedger() *ledger {
	return &ledger{started: make(map[string]bool), finished: make(map[string]bool)}
}

// handle runs for as long as the payload says; one that is told to stop says so, the deaf ones do not listen.
func (l *ledger) handle(ctx context.Context, m pubsub.Message) error {
	l.mu.Lock()
	l.started[m.ID] = true
	l.mu.Unlock()
	d := time.Duration(1+len(m.Payload)) * time.Second // never zero, with which Go 1.26 crashes in a bubble under -race
	if m.Header["deaf"] == "" {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
		}
	} else {
		take(d)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	l.mu.Lock()
	l.finished[m.ID] = true
	l.mu.Unlock()
	return nil
}

// TestStopLosesAndRepeatsNothing cancels Run with 1,000 messages in flight: what finishes within the grace is gone, and
// exactly the rest comes again.
func TestStopLosesAndRepeatsNothing(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprint("ordered=", ordered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := mempubsub.New(mempubsub.Config{Lanes: 8})
				s := pubsub.Subscription{
					Topic: "t", Group: "g", Ordered: ordered, Concurrency: 700, DrainTimeout: 5 * time.Second, LaneDepth: 1000,
				}
				first := newLedger()
				_, stop := start(t, mem, s, first.handle)
				bus := pubsub.New(mem)
				for i := range 1000 {
					m := pubsub.Message{ID: fmt.Sprint("m", i), Topic: "t", Key: fmt.Sprint("k", i), Payload: make([]byte, i%13)}
					if i%7 == 0 {
						m.Header = pubsub.Header{"deaf": "yes"}
					}
					require.NoError(t, bus.Publish(t.Context(), m))
				}
				elapse(1500 * time.Millisecond)
				require.ErrorIs(t, stop(), pubsub.ErrDrainTimeout)
				left := 1000 - len(first.finished)
				require.Equal(t, left, mem.Stats().Pending)
				require.Greater(t, len(first.started), len(first.finished)+100, "some were cut off")
				require.Greater(t, len(first.finished), 100, "some had the time")

				second := newLedger()
				_, stop = start(t, mem, s, second.handle)
				elapse(5 * time.Minute)
				require.NoError(t, stop())
				require.Len(t, second.finished, left)
				for id := range second.started {
					require.False(t, first.finished[id], "%s was settled and came again", id)
				}
				require.Zero(t, mem.Stats().Pending)
			})
		})
	}
}

// TestPoisonHoldsUpItsKeyOnly has a message that always fails: it gets MaxAttempts attempts and becomes a dead letter,
// while other keys are handled at once, and its own key goes on afterwards.
func TestPoisonHoldsUpItsKeyOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := mempubsub.New(mempubsub.Config{Lanes: 1})
		bus := pubsub.New(mem)
		dead, err := bus.Open(t.Context(), pubsub.Subscription{Topic: pubsub.DeadLetterTopic("t", "g"), Group: "reader", Start: "start"})
		require.NoError(t, err)
		var mu sync.Mutex
		runs := make(map[string]int)
		var late time.Duration
		begun := time.Now()
		s := pubsub.Subscription{Topic: "t", Group: "g", Ordered: true, Concurrency: 2, MaxAttempts: 4}
		_, stop := start(t, mem, s, func(_ context.Context, m pubsub.Message) error {
			mu.Lock()
			defer mu.Unlock()
			runs[m.ID]++
			if m.Key == "b" {
				late = max(late, time.Since(begun))
			}
			if m.ID == "a0" {
				return pubsub.RetryAfter(time.Second, errBoom)
			}
			return nil
		})
		for i := range 20 {
			for _, key := range []string{"a", "b"} {
				require.NoError(t, bus.Publish(t.Context(), pubsub.Message{ID: fmt.Sprint(key, i), Topic: "t", Key: key}))
			}
		}
		elapse(time.Minute)
		require.NoError(t, stop())
		require.Zero(t, late, "key b waited")
		require.Len(t, runs, 40)
		for id, n := range runs {
			require.Equal(t, map[bool]int{true: 4, false: 1}[id == "a0"], n, id)
		}
		var letters []pubsub.Message
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, dead.Run(ctx, func(_ context.Context, m pubsub.Message) error {
			letters = append(letters, m)
			return nil
		}))
		require.Len(t, letters, 1)
		require.Equal(t, "4", letters[0].Header[pubsub.HeaderAttempts])
	})
}

// TestSlowHandlersRunOncePerMessage prefetches messages that wait for longer than their lease.
func TestSlowHandlersRunOncePerMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := mempubsub.New(mempubsub.Config{})
		s := pubsub.Subscription{Topic: "t", Group: "g", Concurrency: 1, Lease: 500 * time.Millisecond}
		var runs atomic.Int32
		_, stop := start(t, mem, s, func(context.Context, pubsub.Message) error {
			runs.Add(1)
			take(200 * time.Millisecond)
			return nil
		})
		bus := pubsub.New(mem)
		for range 20 {
			require.NoError(t, bus.Publish(t.Context(), pubsub.Message{Topic: "t"}))
		}
		elapse(time.Minute)
		require.EqualValues(t, 20, runs.Load())
		require.Zero(t, mem.Stats().Pending)
		require.NoError(t, stop())
	})
}

// TestSomebodyReceivesWhileHandlersRun blocks a handler and wants the next message to be taken in all the same.
func TestSomebodyReceivesWhileHandlersRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		release := make(chan struct{})
		c, stop := start(t, d, pubsub.Subscription{Concurrency: 3}, func(context.Context, pubsub.Message) error {
			<-release
			return nil
		})
		for i := range 4 {
			d.deliver(1, fmt.Sprint("m", i))
			synctest.Wait()
			require.EqualValues(t, i+1, c.Stats().Received)
			require.Equal(t, min(i+1, 3), c.Stats().InFlight)
		}
		d.deliver(1, "m4")
		synctest.Wait()
		require.EqualValues(t, 4, c.Stats().Received, "half of what may be held is not used up yet")
		close(release)
		synctest.Wait()
		require.Len(t, d.given(), 5)
		require.NoError(t, stop())
	})
}

// TestNoDeadLetterOfALostMessage has a handler fail for good after its lease has gone to somebody else.
func TestNoDeadLetterOfALostMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		published := 0
		d.publish = func([]pubsub.Message) []error { published++; return nil }
		s := pubsub.Subscription{Lease: 3 * time.Second, HandleTimeout: 5 * time.Second}
		var runs int
		_, stop := start(t, d, s, func(context.Context, pubsub.Message) error {
			runs++
			take(time.Minute) // deaf
			return pubsub.DeadLetter(errBoom)
		})
		d.deliver(1, "m")
		elapse(2 * time.Minute)
		require.Zero(t, published)
		require.Empty(t, d.given())
		d.deliver(2, "m") // it comes again
		synctest.Wait()
		require.Equal(t, 1, published)
		require.Equal(t, []pubsub.Verdict{ack("m")}, d.given())
		require.Equal(t, 1, runs, "the handler has said its word")
		require.NoError(t, stop())
	})
}

// dawdling is a driver whose Receive takes a second to end, and then brings one more message.
type dawdling struct{ *scripted }

type dawdlingReceiver struct{ *scriptedReceiver }

func (d dawdling) Open(context.Context, pubsub.Subscription) (pubsub.Receiver, error) {
	return dawdlingReceiver{&scriptedReceiver{d.scripted}}, nil
}

func (r dawdlingReceiver) Receive(ctx context.Context, limit int) ([]pubsub.Delivery, error) {
	got, err := r.scriptedReceiver.Receive(ctx, limit)
	if err != nil {
		take(time.Second)
		r.deliver(1, "late")
		return <-r.deliveries, nil
	}
	return got, nil
}

func TestDrainGivesBackWhatTheLastReceiveBrings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		_, stop := startBatch(t, dawdling{d}, pubsub.Subscription{BatchWait: time.Hour}, func(context.Context, []pubsub.Message) error {
			t.Error("handled")
			return nil
		})
		d.deliver(1, "a")
		synctest.Wait()
		result := make(chan error)
		go func() { result <- stop() }()
		synctest.Wait()
		require.Equal(t, []pubsub.Verdict{nack("a", 0)}, d.given(), "others may have it at once")
		require.NoError(t, <-result)
		require.Equal(t, []pubsub.Verdict{nack("a", 0), nack("late", 0)}, d.given())
	})
}
