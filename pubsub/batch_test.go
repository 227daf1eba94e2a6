package pubsub_test

import (
	"context"
	"errors"
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

// startBatch is start for RunBatch.
func startBatch(t *testing.T, d pubsub.Driver, s pubsub.Subscription, h pubsub.BatchHandler, opts ...pubsub.Option) (c *pubsub.Consumer, stop func() error) {
	t.Helper()
	s.Topic, s.Group = "t", "g"
	c, err := pubsub.New(d, opts...).Open(t.Context(), s)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel) // a bubble with a failed test ends, instead of hiding the failure behind a deadlock
	result := make(chan error, 1)
	go func() { result <- c.RunBatch(ctx, h) }()
	return c, func() error {
		cancel()
		return <-result
	}
}

// batches records what a BatchHandler was given.
type batches struct {
	mu  sync.Mutex
	got [][]string
}

func (b *batches) note(msgs []pubsub.Message) {
	var ids []string
	for _, m := range msgs {
		ids = append(ids, m.ID)
	}
	b.mu.Lock()
	b.got = append(b.got, ids)
	b.mu.Unlock()
}

func (b *batches) all() [][]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([][]string(nil), b.got...)
}

func TestFullBatchStartsAtOnceAndOthersAfterBatchWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		var b batches
		s := pubsub.Subscription{BatchSize: 3, BatchWait: time.Second}
		_, stop := startBatch(t, d, s, func(_ context.Context, msgs []pubsub.Message) error { b.note(msgs); return nil })
		d.deliver(1, "a")
		d.deliver(1, "b", "c", "d")
		synctest.Wait()
		require.Equal(t, [][]string{{"a", "b", "c"}}, b.all())
		elapse(900 * time.Millisecond)
		d.deliver(1, "e")
		synctest.Wait()
		require.Len(t, b.all(), 1)
		elapse(99 * time.Millisecond)
		require.Len(t, b.all(), 1)
		elapse(time.Millisecond)
		require.Equal(t, []string{"d", "e"}, b.all()[1])
		d.deliver(1, "f")
		elapse(999 * time.Millisecond)
		require.Len(t, b.all(), 2, "a new batch waits anew")
		elapse(time.Millisecond)
		require.Equal(t, []string{"f"}, b.all()[2])
		require.Len(t, d.given(), 6)
		require.NoError(t, stop())
	})
}

func TestNegativeBatchWaitTakesWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		var b batches
		_, stop := startBatch(t, d, pubsub.Subscription{BatchWait: -1, Concurrency: 1}, func(_ context.Context, msgs []pubsub.Message) error {
			b.note(msgs)
			take(time.Second)
			return nil
		})
		d.deliver(1, "a")
		synctest.Wait()
		d.deliver(1, "b", "c")
		elapse(time.Second)
		require.Equal(t, [][]string{{"a"}, {"b", "c"}}, b.all())
		require.NoError(t, stop())
	})
}

func TestBatchesAreBoundedAndPrefetchFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		var running, peak, longest atomic.Int32
		s := pubsub.Subscription{BatchSize: 10, Concurrency: 2}
		c, stop := startBatch(t, d, s, func(_ context.Context, msgs []pubsub.Message) error {
			peak.Store(max(peak.Load(), running.Add(1)))
			longest.Store(max(longest.Load(), int32(len(msgs))))
			take(time.Second)
			running.Add(-1)
			return nil
		})
		for i := range 500 {
			d.deliver(1, fmt.Sprint("m", i))
		}
		synctest.Wait()
		require.Equal(t, 2, c.Stats().InFlight)
		require.LessOrEqual(t, c.Stats().Held, 40)
		require.Greater(t, c.Stats().Held, 20, "the next batches are fetched ahead")
		s = c.Config()
		s.BatchSize, s.Concurrency = 20, 3
		require.NoError(t, c.Reconfigure(s))
		elapse(time.Minute)
		require.EqualValues(t, 3, peak.Load())
		require.EqualValues(t, 20, longest.Load())
		require.Len(t, d.given(), 500)
		require.NoError(t, stop())
	})
}

func TestOrderedBatchHasOneMessageOfAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(pubsub.Capabilities{Ordered: true})
		var b batches
		s := pubsub.Subscription{Ordered: true, BatchWait: time.Second}
		_, stop := startBatch(t, d, s, func(_ context.Context, msgs []pubsub.Message) error { b.note(msgs); return nil })
		d.deliver(1, "a1", "a2", "b1", "c1", "b2", "a3")
		elapse(time.Minute)
		require.Equal(t, [][]string{{"a1", "b1", "c1"}, {"a2", "b2"}, {"a3"}}, b.all())
		require.Len(t, d.given(), 6)
		require.NoError(t, stop())
	})
}

func TestBatchVerdicts(t *testing.T) {
	each := pubsub.BatchErrors{nil, pubsub.RetryAfter(time.Second, errBoom), pubsub.DeadLetter(errBoom)}
	later := []pubsub.Verdict{nack("a", time.Second), nack("b", time.Second), nack("c", time.Second)}
	acks := []pubsub.Verdict{ack("a"), ack("b"), ack("c")}
	again := func(err error) error { return pubsub.RetryAfter(time.Second, err) }
	for name, test := range map[string]struct {
		handle  func() error
		want    []pubsub.Verdict
		letters int
	}{
		"nil":             {func() error { return nil }, acks, 0},
		"error":           {func() error { return errBoom }, nil, 0},
		"RetryAfter":      {func() error { return again(errBoom) }, later, 0},
		"DeadLetter":      {func() error { return pubsub.DeadLetter(errBoom) }, acks, 3},
		"panic":           {func() error { panic(errBoom) }, nil, 0},
		"Goexit":          {func() error { runtime.Goexit(); return nil }, nil, 0},
		"BatchErrors":     {func() error { return each }, []pubsub.Verdict{ack("a"), nack("b", time.Second), ack("c")}, 1},
		"none failed":     {func() error { return make(pubsub.BatchErrors, 3) }, acks, 0},
		"too short":       {func() error { return each[:2] }, nil, 0},
		"too long":        {func() error { return make(pubsub.BatchErrors, 4) }, nil, 0},
		"none":            {func() error { return pubsub.BatchErrors{} }, nil, 0},
		"wrapped":         {func() error { return again(make(pubsub.BatchErrors, 3)) }, later, 0},
		"joined to error": {func() error { return errors.Join(make(pubsub.BatchErrors, 3), errBoom) }, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newScripted(delayed)
				var letters []pubsub.Message
				calls := 0
				d.publish = func(m []pubsub.Message) []error { calls++; letters = append(letters, m...); return nil }
				var errs []error
				s := pubsub.Subscription{BatchSize: 3, Concurrency: 1}
				c, stop := startBatch(t, d, s, func(context.Context, []pubsub.Message) error { return test.handle() },
					pubsub.OnRetry(func(r pubsub.Retried) { errs = append(errs, r.Err) }))
				d.deliver(1, "a", "b", "c")
				synctest.Wait()
				given := d.given()
				require.Len(t, given, 3)
				if test.want != nil {
					require.Equal(t, test.want, given)
				} else {
					for i, v := range given {
						require.Equal(t, pubsub.Nack, v.Kind)
						require.Error(t, errs[i])
					}
				}
				require.Len(t, letters, test.letters)
				require.LessOrEqual(t, calls, 1, "dead letters go together")
				require.EqualValues(t, 3, c.Stats().Handled+c.Stats().Failed)
				d.deliver(1, "d", "e", "f") // the worker lives on
				synctest.Wait()
				require.Len(t, d.given(), 6)
				require.NoError(t, stop())
			})
		})
	}
}

func TestPartlyFailedDeadLettersOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		tries := 0
		d.publish = func(m []pubsub.Message) []error {
			if tries++; tries > 1 {
				return nil
			}
			return []error{nil, errBoom, nil}
		}
		runs := 0
		c, stop := startBatch(t, d, pubsub.Subscription{BatchSize: 3, BackoffInitial: -1}, func(_ context.Context, msgs []pubsub.Message) error {
			runs += len(msgs)
			return pubsub.DeadLetter(errBoom)
		})
		d.deliver(1, "a", "b", "c")
		synctest.Wait()
		require.Equal(t, []pubsub.Verdict{ack("a"), nack("b", 0), ack("c")}, d.given())
		d.deliver(2, "b")
		elapse(time.Minute)
		require.Equal(t, ack("b"), d.given()[3])
		require.Equal(t, 3, runs, "the handler has said its word")
		require.EqualValues(t, 3, c.Stats().DeadLettered)
		require.EqualValues(t, 1, c.Stats().DeadLetterFailed)
		require.NoError(t, stop())
	})
}

func TestHandleTimeoutBoundsTheBatchAndItsLeasesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := mempubsub.New(mempubsub.Config{})
		s := pubsub.Subscription{BatchSize: 5, Lease: time.Second, HandleTimeout: 10 * time.Second, MaxAttempts: 1}
		var runs atomic.Int32
		_, stop := startBatch(t, mem, s, func(ctx context.Context, msgs []pubsub.Message) error {
			runs.Add(int32(len(msgs)))
			begun := time.Now()
			<-ctx.Done()
			if time.Since(begun) != 10*time.Second {
				t.Error("the context ended after", time.Since(begun))
			}
			return nil
		})
		bus := pubsub.New(mem)
		for range 5 {
			require.NoError(t, bus.Publish(t.Context(), pubsub.Message{Topic: "t"}))
		}
		elapse(time.Minute)
		require.EqualValues(t, 5, runs.Load())
		require.Zero(t, mem.Stats().LeasesExpired)
		require.Zero(t, mem.Stats().Pending)
		require.NoError(t, stop())
	})
}

func TestDrainFinishesRunningBatchesAndCutsWaitingOnesShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		var b batches
		s := pubsub.Subscription{BatchSize: 2, BatchWait: time.Hour}
		_, stop := startBatch(t, d, s, func(_ context.Context, msgs []pubsub.Message) error {
			take(5 * time.Second)
			b.note(msgs)
			return nil
		})
		d.deliver(1, "a", "b", "c")
		synctest.Wait()
		begun := time.Now()
		result := make(chan error)
		go func() { result <- stop() }()
		synctest.Wait()
		require.Equal(t, []pubsub.Verdict{nack("c", 0)}, d.given())
		require.NoError(t, <-result)
		require.Equal(t, 5*time.Second, time.Since(begun))
		require.Equal(t, [][]string{{"a", "b"}}, b.all())
		require.Equal(t, []pubsub.Verdict{nack("c", 0), ack("a"), ack("b")}, d.given())
	})
}

func TestBatchErrors(t *testing.T) {
	e := pubsub.BatchErrors{nil, errBoom, context.Canceled}
	require.EqualError(t, e, "pubsub: 2 of 3 messages failed, first: boom")
	require.ErrorIs(t, e, context.Canceled)
	require.NotErrorIs(t, e, context.DeadlineExceeded)
	require.EqualError(t, make(pubsub.BatchErrors, 2), "pubsub: 0 of 2 messages failed")
	c, err := pubsub.New(newScripted(delayed)).Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"})
	require.NoError(t, err)
	require.Error(t, c.RunBatch(t.Context(), nil))
	require.NoError(t, c.Close())
}
