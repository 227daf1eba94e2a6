package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

var errRefused = errors.New("refused")

func testCommitted[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	p := &Publisher{}
	start(t, s, p, outbox.RelayConfig{})
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			ob := outbox.New[Tx](s, outbox.Config{})
			for i := range each {
				err := ob.InTx(t.Context(), func(ctx context.Context, tx Tx) error {
					return ob.Publish(ctx, tx, message(fmt.Sprint("k", w), fmt.Sprint(w, "/", i)))
				})
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	wg.Wait()
	ok(t, p.Wait(waiting(t), func(taken []pubsub.Message, _ int) bool { return len(distinct(taken)) == writers*each }))
}

func distinct(msgs []pubsub.Message) map[string]int {
	count := map[string]int{}
	for _, m := range msgs {
		count[m.ID]++
	}
	return count
}

// putNumbered stores the messages numbered from first to last of every key, mixed over the keys.
func putNumbered[Tx any](t *testing.T, s Store[Tx], keys, first, last int) {
	t.Helper()
	for i := first; i <= last; i++ {
		batch := make([]pubsub.Message, keys)
		for k := range keys {
			batch[k] = pubsub.Message{ID: fmt.Sprintf("%d-%d", k, i), Topic: "test", Key: fmt.Sprint(k), Payload: []byte(strconv.Itoa(i))}
		}
		put(t, s, batch...)
	}
}

// inOrder fails the test unless the first occurrences of each key are numbered 1, 2, 3 and so on.
func inOrder(t *testing.T, msgs []pubsub.Message) {
	t.Helper()
	last := map[string]int{}
	for _, m := range msgs {
		n, err := strconv.Atoi(string(m.Payload))
		ok(t, err)
		if n > last[m.Key]+1 {
			t.Fatalf("key %s: %d follows %d", m.Key, n, last[m.Key])
		}
		last[m.Key] = max(n, last[m.Key])
	}
}

// sharing waits until each relay holds a part of the buckets.
func sharing(t *testing.T, relays ...*outbox.Relay) {
	t.Helper()
	eventually(t, "sharing", func() bool {
		for _, r := range relays {
			if n := r.Stats().Buckets; n == 0 || n == outbox.Buckets {
				return false
			}
		}
		return true
	})
}

func testOrder[Tx any](t *testing.T, h Harness[Tx]) {
	const keys, each = 100, 12
	s := h.New(t)
	p := &Publisher{}
	var n atomic.Int64
	p.Refuse(func(pubsub.Message) error {
		if n.Add(1)%11 == 0 {
			return errRefused
		}
		return nil
	})
	cfg := outbox.RelayConfig{Batch: 64, Lease: 3 * time.Second, PollMax: 20 * time.Millisecond, BackoffInitial: time.Millisecond, MaxAttempts: -1}
	first, stop := start(t, s, p, cfg)
	second, _ := start(t, s, p, cfg)
	sharing(t, first, second)
	last := each
	putNumbered(t, s, keys, 1, last)
	third, _ := start(t, s, p, cfg) // joins while the others are at work
	eventually(t, "the third relay's share", func() bool {
		last++
		putNumbered(t, s, keys, last, last)
		return third.Stats().Buckets > 0
	})
	putNumbered(t, s, keys, last+1, last+each)
	last += each
	stop() // leaves before the end
	ok(t, p.Wait(waiting(t), func(taken []pubsub.Message, _ int) bool { return len(distinct(taken)) == keys*last }))
	for _, r := range []*outbox.Relay{first, second, third} {
		if r.Stats().Published == 0 {
			t.Error("a relay took no part")
		}
	}
	inOrder(t, p.Messages())
}

func testPoison[Tx any](t *testing.T, h Harness[Tx]) {
	const keys, each = 5, 4
	s := h.New(t)
	p := &Publisher{}
	var poisoned atomic.Bool
	poisoned.Store(true)
	p.Refuse(func(m pubsub.Message) error {
		if m.ID == "0-2" && poisoned.Load() {
			return errRefused
		}
		return nil
	})
	putNumbered(t, s, keys, 1, each)
	parked := make(chan outbox.Failure, 1)
	cfg := outbox.RelayConfig{PollMax: 10 * time.Millisecond, BackoffInitial: time.Millisecond, BackoffMax: 2 * time.Millisecond, MaxAttempts: 3}
	start(t, s, p, cfg, outbox.OnFailure(func(f outbox.Failure) {
		if f.Parked {
			parked <- f
		}
	}))
	// Other keys keep flowing, which is what shows that the message is to blame and not the publisher.
	more := 0
	eventually(t, "parking", func() bool {
		more++
		put(t, s, message("other", fmt.Sprint("other", more)))
		return len(parked) > 0
	})
	f := <-parked
	equal(t, "parked", f.Record.Message.ID, "0-2")
	equal(t, "attempts", f.Record.Attempts, 3)
	// All of the other keys, and of the poisoned one the message before.
	ok(t, p.Wait(waiting(t), func(taken []pubsub.Message, _ int) bool { return len(distinct(taken)) == (keys-1)*each+1+more }))
	poisoned.Store(false)
	n, err := s.Requeue(waiting(t), f.Record.Seq)
	ok(t, err)
	equal(t, "requeued", n, 1)
	ok(t, p.Wait(waiting(t), func(taken []pubsub.Message, _ int) bool { return len(distinct(taken)) == keys*each+more }))
	for id, n := range distinct(p.Messages()) {
		equal(t, "times that "+id+" was published", n, 1)
	}
}

// testNoDuplicates tries again where a relay was held up for longer than its lease: then it may repeat a batch.
func testNoDuplicates[Tx any](t *testing.T, h Harness[Tx]) {
	for range 5 {
		if fenced := noDuplicates(t, h); fenced == 0 {
			return
		}
	}
	t.Fatal("two relays that only share the work fence each other")
}

// noDuplicates returns how many batches were fenced. Where none was, nothing may have been published twice.
func noDuplicates[Tx any](t *testing.T, h Harness[Tx]) (fenced uint64) {
	t.Helper()
	const keys, each = 40, 25
	s := h.New(t)
	p := &Publisher{}
	cfg := outbox.RelayConfig{Batch: 50, Lease: 3 * time.Second, PollMax: 10 * time.Millisecond}
	first, stopFirst := start(t, s, p, cfg)
	second, stopSecond := start(t, s, p, cfg)
	putNumbered(t, s, keys, 1, each/2)
	sharing(t, first, second)
	putNumbered(t, s, keys, each/2+1, each)
	ok(t, p.Wait(waiting(t), func(taken []pubsub.Message, _ int) bool { return len(distinct(taken)) == keys*each }))
	eventually(t, "settling", func() bool {
		b, err := s.Backlog(waiting(t))
		ok(t, err)
		return b.Pending == 0
	})
	stopFirst()
	stopSecond()
	inOrder(t, p.Messages())
	if fenced = first.Stats().Fenced + second.Stats().Fenced; fenced == 0 {
		equal(t, "published in all", len(p.Messages()), keys*each)
	}
	return fenced
}

// stalled is a publisher that takes the messages and never answers, as a process does that stops in the middle.
type stalled struct {
	Publisher
	once    sync.Once
	reached chan struct{}
	resume  chan struct{}
}

func (s *stalled) Publish(_ context.Context, msgs ...pubsub.Message) error {
	err := s.Publisher.Publish(context.Background(), msgs...)
	s.once.Do(func() { close(s.reached) })
	<-s.resume
	return err
}

func testAbandoned[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	putNumbered(t, s, 10, 1, 1)
	first := &stalled{reached: make(chan struct{}), resume: make(chan struct{})}
	fenced := make(chan struct{})
	report := sync.OnceFunc(func() { close(fenced) })
	cfg := outbox.RelayConfig{Lease: 200 * time.Millisecond, PollMax: 10 * time.Millisecond}
	_, stop := start(t, s, first, cfg, outbox.OnError(func(err error) {
		if errors.Is(err, outbox.ErrFenced) {
			report()
		}
	}))
	<-first.reached
	second := &Publisher{}
	cfg.Lease = 10 * time.Second // it is not to be replaced in its turn
	start(t, s, second, cfg)
	ok(t, second.Wait(waiting(t), func(taken []pubsub.Message, _ int) bool { return len(distinct(taken)) == 10 }))
	for _, m := range second.Messages() {
		equal(t, "times that the first relay published "+m.ID, distinct(first.Messages())[m.ID], 1)
	}
	putNumbered(t, s, 10, 2, 3)
	ok(t, second.Wait(waiting(t), func(taken []pubsub.Message, _ int) bool { return len(distinct(taken)) == 30 }))
	inOrder(t, second.Messages())
	close(first.resume)
	select {
	case <-fenced:
	case <-waiting(t).Done():
		t.Fatal("the relay that came back settled what it had lost")
	}
	stop()
}
