package pubsubtest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// runBatch is run for a handler of batches.
func (e *env) runBatch(c *pubsub.Consumer, h pubsub.BatchHandler) *running {
	return e.start(func(ctx context.Context) error { return c.RunBatch(ctx, h) })
}

func batches(e *env) {
	s := e.sub("g")
	s.BatchSize, s.BatchWait, s.Concurrency = 10, 200*time.Millisecond, 2
	in := e.inbox()
	var mu sync.Mutex
	largest := 0
	attempts := make(map[string]int)
	run := e.runBatch(e.open(e.bus, s), func(_ context.Context, msgs []pubsub.Message) error {
		mu.Lock()
		defer mu.Unlock()
		largest = max(largest, len(msgs))
		if len(msgs) == 0 || len(msgs) > s.BatchSize {
			e.Errorf("a batch has %d messages, want 1 to %d", len(msgs), s.BatchSize)
		}
		errs := make(pubsub.BatchErrors, len(msgs))
		for i, m := range msgs {
			attempts[m.ID]++
			if i%3 == 0 && m.Attempt == 1 {
				errs[i] = errors.New("not yet")
				continue
			}
			if m.Attempt < attempts[m.ID] { // more of them is the broker's good right
				e.Errorf("message %s came %d times and has Attempt %d", m.ID, attempts[m.ID], m.Attempt)
			}
			in.ch <- m
		}
		return errs
	})
	msgs := numbered("m", 100)
	e.publish(msgs...)
	in.once(msgs)
	if largest < 2 {
		e.Errorf("100 messages came one by one")
	}
	if err := run.stop(); err != nil {
		e.Errorf("RunBatch: %v", err)
	}
	e.quiet(e.filled("g"), e.h.Lease+e.h.Lease/2)
}

func batchPerKey(e *env) {
	const perKey = 12
	l := newLedger(e, perKey)
	s := e.orderedSub()
	s.BatchSize, s.BatchWait = 10, 10*time.Millisecond
	for range 2 {
		e.runBatch(e.open(e.bus, s), func(_ context.Context, msgs []pubsub.Message) error {
			errs := make(pubsub.BatchErrors, len(msgs))
			begun := make([]int, len(msgs))
			for i, m := range msgs { // a second one of a key would begin while the first is being handled
				begun[i] = l.begin(m)
			}
			for i, m := range msgs {
				if m.Attempt < 1+begun[i]%2 {
					errs[i] = errors.New("not yet")
				}
				l.end(m, begun[i], errs[i] == nil)
			}
			return errs
		})
	}
	e.publish(sequence(perKey)...)
	l.wait(0)
}
