package pubsub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// hostile is a driver whose broker is often away.
type hostile struct {
	*mempubsub.Driver
	caps pubsub.Capabilities
	rnd  *dice
}

// dice are random and safe for concurrent use.
type dice struct {
	mu  sync.Mutex
	rnd *rand.Rand
}

func (d *dice) roll(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rnd.IntN(n)
}

func (h *hostile) Capabilities() pubsub.Capabilities { return h.caps }

func (h *hostile) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	switch h.rnd.roll(4) {
	case 0: // refused
		return slices.Repeat([]error{errBoom}, len(msgs))
	case 1: // accepted, the answer lost
		h.Driver.Publish(ctx, msgs)
		return slices.Repeat([]error{pubsub.ErrInDoubt}, len(msgs))
	}
	return h.Driver.Publish(ctx, msgs)
}

func (h *hostile) Open(ctx context.Context, s pubsub.Subscription) (pubsub.Receiver, error) {
	r, err := h.Driver.Open(ctx, s)
	return &hostileReceiver{r, h.rnd}, err
}

type hostileReceiver struct {
	pubsub.Receiver
	rnd *dice
}

func (r *hostileReceiver) Settle(ctx context.Context, verdicts []pubsub.Verdict) error {
	switch r.rnd.roll(8) {
	case 0:
		return errBoom
	case 1: // some accepted, the answer lost
		_ = r.Receiver.Settle(ctx, verdicts[:r.rnd.roll(len(verdicts)+1)])
		return errBoom
	case 2: // hangs
		<-ctx.Done()
		return ctx.Err()
	}
	return r.Receiver.Settle(ctx, verdicts)
}

// history is what the handlers of all members saw.
type history struct {
	mu      sync.Mutex
	handled map[string]bool // or dead letter
	highest map[string]int  // number of the last first occurrence per key
	faults  []string
}

func (h *history) begin(m pubsub.Message) {
	n, _ := strconv.Atoi(string(m.Payload))
	h.mu.Lock()
	defer h.mu.Unlock()
	if n > h.highest[m.Key]+1 {
		h.faults = append(h.faults, fmt.Sprintf("key %s: %d after %d", m.Key, n, h.highest[m.Key]))
	}
	h.highest[m.Key] = max(h.highest[m.Key], n)
}

func (h *history) finish(m pubsub.Message) {
	h.mu.Lock()
	h.handled[m.ID] = true
	h.mu.Unlock()
}

// TestNothingIsLost has members come and go over a hostile driver, with handlers that fail, panic, hang and dawdle, and
// wants each message to be handled or to be a dead letter; ordered, first occurrences come in order.
func TestNothingIsLost(t *testing.T) {
	for seed := range uint64(60) {
		for _, ordered := range []bool{false, true} {
			t.Run(fmt.Sprintf("ordered=%v/seed=%d", ordered, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { nothingIsLost(t, seed, ordered) })
			})
		}
	}
}

func nothingIsLost(t *testing.T, seed uint64, ordered bool) {
	rnd := &dice{rnd: rand.New(rand.NewPCG(seed, 1))}
	mem := mempubsub.New(mempubsub.Config{Lanes: 5})
	driver := &hostile{Driver: mem, rnd: rnd, caps: pubsub.Capabilities{
		Driver: "hostile", Ordered: true, DelayedNack: rnd.roll(2) == 0,
	}}
	s := pubsub.Subscription{
		Topic: "t", Group: "g", Ordered: ordered, Concurrency: 1 + rnd.roll(5), MaxAttempts: 3 + rnd.roll(3),
		Lease: 2 * time.Second, HandleTimeout: 3 * time.Second, DrainTimeout: time.Second, LaneDepth: 2 + rnd.roll(10),
	}
	h := &history{handled: make(map[string]bool), highest: make(map[string]int)}
	handler := func(ctx context.Context, m pubsub.Message) error {
		h.begin(m)
		switch rnd.roll(12) {
		case 0:
			panic(errBoom)
		case 1, 2:
			return errBoom
		case 3:
			return pubsub.RetryAfter(time.Duration(rnd.roll(3000))*time.Millisecond, errBoom)
		case 4:
			<-ctx.Done()
			return ctx.Err()
		case 5:
			take(time.Duration(1+rnd.roll(5000)) * time.Millisecond) // deaf to its context
		}
		h.finish(m)
		return nil
	}

	clean := pubsub.New(mem) // publishes without losses, so that every message counts
	member := func() func() error {
		_, stop := start(t, driver, s, handler, pubsub.OnDeadLetter(func(d pubsub.DeadLettered) {
			h.begin(d.Message) // it may have been given back too often to be handled
			h.finish(d.Message)
		}))
		return stop
	}
	members := []func() error{member()}
	const keys, perKey = 7, 15
	for n := 1; n <= perKey; n++ {
		for k := range keys {
			m := pubsub.Message{ID: fmt.Sprint(k, "-", n), Topic: "t", Key: fmt.Sprint(k), Payload: []byte(strconv.Itoa(n))}
			require.NoError(t, clean.Publish(t.Context(), m))
		}
		elapse(time.Duration(1+rnd.roll(500)) * time.Millisecond) // never zero, with which Go 1.26 may crash under -race
		switch i := rnd.roll(len(members) + 3); {
		case i < len(members) && len(members) > 1:
			stop := members[i]
			members = slices.Delete(members, i, i+1)
			_ = stop()
		case len(members) < 4:
			members = append(members, member())
		}
	}
	missing := func() (ids []string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		for n := 1; n <= perKey; n++ {
			for k := range keys {
				id := fmt.Sprint(k, "-", n)
				if !h.handled[id] {
					ids = append(ids, id)
				}
			}
		}
		return ids
	}
	for begun := time.Now(); mem.Stats().Pending > 0; elapse(time.Second) {
		if time.Since(begun) > time.Hour {
			t.Fatalf("after an hour there is still %+v; missing: %v", mem.Stats(), missing())
		}
	}
	require.Empty(t, missing())
	if ordered {
		require.Empty(t, h.faults)
	}
	for _, stop := range members {
		_ = stop()
	}
	elapse(time.Minute) // deaf handlers end
}
