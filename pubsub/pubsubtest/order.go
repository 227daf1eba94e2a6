package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

func orderIsDeclared(e *env) {
	s := e.sub("g")
	s.Ordered = true
	c, err := e.bus.Open(e.soon(), s)
	switch {
	case e.driver.Capabilities().Ordered && err != nil:
		e.Errorf("the driver declares order: %v", err)
	case !e.driver.Capabilities().Ordered && !errors.Is(err, pubsub.ErrUnsupported):
		e.Errorf("the driver declares no order, and Open returned %v", err)
	}
	if c != nil {
		if err := c.Close(); err != nil {
			e.Error(err)
		}
	}
}

// ledger checks what handlers see of numbered messages per key.
type ledger struct {
	e        *env
	mu       sync.Mutex
	seen     map[string]int // highest number begun per key
	done     map[string]int // numbers handled per key
	running  map[string]int // handlers at work per key
	overlaps bool           // a handler may be repeated elsewhere while it still runs
	left     int
	changed  chan struct{} // capacity 1: something was handled
}

const keys = 25

// newLedger expects perKey messages of each key.
func newLedger(e *env, perKey int) *ledger {
	return &ledger{
		e: e, seen: make(map[string]int), done: make(map[string]int), running: make(map[string]int),
		left: keys * perKey, changed: make(chan struct{}, 1),
	}
}

// sequence makes the messages: numbers 1 to perKey for each key, keys mixed.
func sequence(perKey int) []pubsub.Message {
	var msgs []pubsub.Message
	for n := 1; n <= perKey; n++ {
		for k := range keys {
			key := fmt.Sprint("key-", k)
			msgs = append(msgs, pubsub.Message{ID: fmt.Sprintf("%s-%d", key, n), Topic: topic, Key: key, Payload: []byte(strconv.Itoa(n))})
		}
	}
	return msgs
}

// begin checks that m is next of its key, or a repetition.
func (l *ledger) begin(m pubsub.Message) (n int) {
	n, _ = strconv.Atoi(string(m.Payload))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running[m.Key]++; l.running[m.Key] > 1 && !l.overlaps {
		l.e.Errorf("key %s: number %d began while another message of the key was handled", m.Key, n)
	}
	if n > l.seen[m.Key]+1 {
		l.e.Errorf("key %s: number %d came after %d", m.Key, n, l.seen[m.Key])
	}
	if n > l.done[m.Key]+1 && !l.overlaps {
		l.e.Errorf("key %s: number %d came when %d was not handled", m.Key, n, l.done[m.Key]+1)
	}
	l.seen[m.Key] = max(l.seen[m.Key], n)
	return n
}

func (l *ledger) end(m pubsub.Message, n int, handled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running[m.Key]--
	if handled && n > l.done[m.Key] {
		l.done[m.Key] = n
		l.left--
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
}

func (l *ledger) handle(_ context.Context, m pubsub.Message) error {
	l.end(m, l.begin(m), true)
	return nil
}

// wait returns when at most left messages are not handled.
func (l *ledger) wait(left int) {
	l.e.Helper()
	deadline := time.After(l.e.h.Wait)
	for {
		l.mu.Lock()
		n := l.left
		l.mu.Unlock()
		if n <= left {
			return
		}
		select {
		case <-l.changed:
		case <-deadline:
			l.e.Fatalf("%d messages were not handled", n)
		}
	}
}

func (e *env) orderedSub() pubsub.Subscription {
	s := e.sub("g")
	s.Ordered = true
	return s
}

func orderPerKey(e *env) {
	const perKey = 40
	l := newLedger(e, perKey)
	e.consume(e.orderedSub(), l.handle)
	e.consume(e.orderedSub(), l.handle)
	e.publish(sequence(perKey)...)
	l.wait(0)
}

func orderUnderFailures(e *env) {
	const perKey = 12
	l := newLedger(e, perKey)
	s := e.orderedSub()
	s.BackoffInitial, s.BackoffMax = time.Millisecond, 5*time.Millisecond
	for range 2 {
		e.consume(s, func(_ context.Context, m pubsub.Message) error {
			n := l.begin(m)
			if m.Attempt < 1+n%3 {
				l.end(m, n, false)
				return errors.New("not yet")
			}
			l.end(m, n, true)
			return nil
		})
	}
	e.publish(sequence(perKey)...)
	l.wait(0)
}

func orderAcrossClose(e *env) {
	const perKey = 20
	l := newLedger(e, perKey)
	first := e.consume(e.orderedSub(), l.handle)
	second := e.consume(e.orderedSub(), l.handle)
	msgs := sequence(perKey)
	half := len(msgs) / 2
	e.publish(msgs[:half]...)
	l.wait(len(msgs) - half/2)
	if err := first.stop(); err != nil {
		e.Errorf("Run: %v", err)
	}
	e.publish(msgs[half:]...)
	l.wait(len(msgs) - half)
	e.consume(e.orderedSub(), l.handle)
	if err := second.stop(); err != nil {
		e.Errorf("Run: %v", err)
	}
	l.wait(0)
}

func orderAcrossAbandon(e *env) {
	const perKey = 8
	l := newLedger(e, perKey)
	s := e.filled("g")
	s.Ordered = true
	dead := e.receiver(e.driver, s) // takes messages and is heard of no more
	msgs := sequence(perKey)
	e.publish(msgs...)
	got, err := dead.Receive(e.soon(), 20)
	if err != nil || len(got) == 0 {
		e.Fatalf("Receive: %d messages, %v", len(got), err)
	}
	e.consume(e.orderedSub(), l.handle)
	l.wait(0)
}

// oneKey makes n messages of one key.
func oneKey(n int) []pubsub.Message {
	msgs := numbered("m", n)
	for i := range msgs {
		msgs[i].Key = "one"
	}
	return msgs
}

func laneAnew(e *env) {
	s := e.filled("g")
	s.Ordered = true
	r := e.receiver(e.driver, s)
	msgs := oneKey(6)
	e.publish(msgs[:3]...)
	got, err := r.Receive(e.soon(), 3)
	if err != nil {
		e.Fatalf("Receive: %v", err)
	}
	first := slices.Clone(got) // the driver may use its slice again
	ctx, cancel := context.WithTimeout(e.soon(), e.h.Lease/2)
	defer cancel()
	for len(first) < 3 && ctx.Err() == nil { // a driver may deliver fewer of a lane at a time, down to one
		got, err := r.Receive(ctx, 3-len(first))
		if err != nil && ctx.Err() == nil {
			e.Fatalf("Receive: %v", err)
		}
		first = append(first, got...)
	}
	<-ctx.Done()
	var later []pubsub.Verdict
	for _, d := range first[1:] {
		later = append(later, pubsub.Verdict{Token: d.Token, Kind: pubsub.Extend})
	}
	if err := r.Settle(e.soon(), later); err != nil {
		e.Fatalf("Settle: %v", err)
	}
	var again []pubsub.Delivery
	for len(again) < len(first) { // the first has lost its lease, the others must come again behind it
		got, err := r.Receive(e.soon(), len(first)-len(again))
		if err != nil {
			e.Fatalf("Receive: %v", err)
		}
		again = append(again, got...)
	}
	for i, d := range again {
		if d.ID != msgs[i].ID || d.Epoch <= first[i].Epoch || first[i].Epoch == 0 {
			e.Errorf("after the lost lease: %s of epoch %d, want %s of one after %d", d.ID, d.Epoch, msgs[i].ID, first[i].Epoch)
		}
	}
}

func laneDepth(e *env) {
	s := e.filled("g")
	s.Ordered, s.LaneDepth = true, 3
	r := e.receiver(e.driver, s)
	msgs := oneKey(8)
	e.publish(msgs...)
	next := 0
	var open []pubsub.Delivery
	for next < len(msgs) {
		ctx, cancel := context.WithTimeout(e.soon(), e.h.Lease/4)
		got, err := r.Receive(ctx, 10)
		ended := ctx.Err() != nil
		cancel()
		if err != nil && !ended {
			e.Fatalf("Receive: %v", err)
		}
		for _, d := range got {
			if d.ID != msgs[next].ID {
				e.Fatalf("got %s, want %s", d.ID, msgs[next].ID)
			}
			next++
		}
		if open = append(open, got...); len(open) > s.LaneDepth {
			e.Fatalf("%d messages of one lane are unsettled, want at most %d", len(open), s.LaneDepth)
		}
		if len(open) < s.LaneDepth && next < len(msgs) && !ended {
			continue
		}
		for _, d := range open {
			if err := r.Settle(e.soon(), []pubsub.Verdict{{Token: d.Token, Kind: pubsub.Ack}}); err != nil {
				e.Fatalf("Settle: %v", err)
			}
		}
		open = nil
	}
}
