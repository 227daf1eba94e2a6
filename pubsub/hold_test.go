package pubsub_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

// give delivers messages in one Receive, in the driver's epoch.
func (d *scripted) give(msgs ...pubsub.Message) {
	var batch []pubsub.Delivery
	for _, m := range msgs {
		m.Topic, m.Attempt = "t", 1
		batch = append(batch, pubsub.Delivery{Message: m, Epoch: d.epoch, Token: token(m.ID, d.epoch) + m.Header[pubsub.HeaderRedrive]})
	}
	d.deliveries <- batch
}

func keyed(id string) pubsub.Message { return pubsub.Message{ID: id, Key: id[:1]} }

func redriven(id, group string) pubsub.Message {
	m := keyed(id)
	m.Header = pubsub.Header{pubsub.HeaderRedrive: group + "/1"}
	return m
}

// holding runs a consumer with HoldKey whose handler finds the poisoned IDs unfit.
type holding struct {
	*scripted
	mu       sync.Mutex
	poisoned map[string]bool
	seen     []string
	letters  []pubsub.Message
}

func newHolding() *holding {
	h := &holding{scripted: newScripted(pubsub.Capabilities{Ordered: true}), poisoned: make(map[string]bool)}
	h.epoch = 1
	h.publish = func(m []pubsub.Message) []error {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.letters = append(h.letters, m...)
		return nil
	}
	return h
}

func (h *holding) handle(_ context.Context, m pubsub.Message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, m.ID+m.Header[pubsub.HeaderRedrive])
	if h.poisoned[m.ID] {
		return pubsub.DeadLetter(errBoom)
	}
	return nil
}

// buried lists the dead letters, with their reasons.
func (h *holding) buried() (ids []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.letters {
		ids = append(ids, m.ID+" "+m.Header[pubsub.HeaderReason])
	}
	return ids
}

// handled lists what the handler has seen.
func (h *holding) handled() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.seen...)
}

var holdKey = pubsub.Subscription{Ordered: true, HoldKey: true, Concurrency: 3}

func TestHeldKeyFollowsItsDeadLetterUntilOneIsRedriven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		h.poisoned["a1"] = true
		c, stop := start(t, h, holdKey, h.handle)
		h.give(keyed("a1"), keyed("a2"), keyed("b1"))
		h.give(keyed("a3"))
		synctest.Wait()
		require.ElementsMatch(t, []string{"a1", "b1"}, h.handled())
		require.Equal(t, []string{"a1 handler", "a2 held", "a3 held"}, h.buried())
		require.Equal(t, "0", h.letters[1].Header[pubsub.HeaderAttempts])
		require.Contains(t, h.letters[1].Header[pubsub.HeaderLastError], "earlier message")
		require.ElementsMatch(t, []pubsub.Verdict{ack("a1"), ack("a2"), ack("b1"), ack("a3")}, h.given())

		h.give(redriven("a1", "other"), keyed("a4")) // somebody else's
		synctest.Wait()
		require.Len(t, h.handled(), 2)
		require.EqualValues(t, 1, c.Stats().Skipped)
		h.give(redriven("a1", "g"), keyed("a5")) // it fails once more
		synctest.Wait()
		require.Equal(t, []string{"a4 held", "a1 handler", "a5 held"}, h.buried()[3:])

		delete(h.poisoned, "a1")
		h.give(redriven("a1", "g"), redriven("a2", "g"), keyed("a6"))
		synctest.Wait()
		require.Equal(t, []string{"a1g/1", "a1g/1", "a2g/1", "a6"}, h.handled()[2:])
		require.Len(t, h.buried(), 6)
		require.NoError(t, stop())
	})
}

func TestHoldEndsWhenTheLaneBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		h.poisoned["a1"] = true
		_, stop := start(t, h, holdKey, h.handle)
		h.give(keyed("a1"), keyed("a2"))
		synctest.Wait()
		h.epoch = 2
		h.give(keyed("a3"))
		synctest.Wait()
		require.Equal(t, []string{"a1 handler", "a2 held"}, h.buried())
		require.Equal(t, []string{"a1", "a3"}, h.handled())
		require.NoError(t, stop())
	})
}

func TestMessagesWithoutAKeyAreNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		h.poisoned["1"] = true
		_, stop := start(t, h, holdKey, h.handle)
		h.give(pubsub.Message{ID: "1"}, pubsub.Message{ID: "2"})
		synctest.Wait()
		require.Equal(t, []string{"1", "2"}, h.handled())
		require.NoError(t, stop())
	})
}

func TestHoldWaitsForItsDeadLetterToBeAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		h.poisoned["a1"] = true
		publish, tries := h.publish, 0
		h.publish = func(m []pubsub.Message) []error {
			if tries++; tries < 4 {
				return []error{errBoom}
			}
			return publish(m)
		}
		_, stop := start(t, h, holdKey, h.handle)
		h.give(keyed("a1"), keyed("a2"))
		synctest.Wait()
		require.Empty(t, h.given())
		elapse(time.Minute)
		require.Equal(t, []string{"a1 handler", "a2 held"}, h.buried())
		require.Equal(t, []string{"a1"}, h.handled())
		require.NoError(t, stop())
	})
}

func TestTooManyHeldKeysKeepTheirMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 10_000
		h := newHolding()
		for i := range most + 1 {
			h.poisoned[fmt.Sprint("k", i)] = true
		}
		s := holdKey
		s.BackoffMax = time.Minute
		var full error
		c, stop := start(t, h, s, h.handle, pubsub.OnRetry(func(r pubsub.Retried) { full = r.Err }))
		for i := range most + 1 {
			id := fmt.Sprint("k", i)
			h.give(pubsub.Message{ID: id, Key: id})
			if i%10 == 0 || i == most-1 { // the last one comes when all others are held
				synctest.Wait()
			}
		}
		last := fmt.Sprint("k", most)
		h.give(pubsub.Message{ID: "next", Key: last}, pubsub.Message{ID: "more", Key: "k1"}, pubsub.Message{ID: "free", Key: "free"})
		elapse(time.Hour)
		require.Equal(t, most+1, len(h.buried()), "all but the last, and the second of k1") //nolint:testifylint // Len would print them all
		require.Equal(t, "free", h.handled()[len(h.handled())-1])
		require.ErrorContains(t, full, "too many keys are held")
		require.Equal(t, 2, c.Stats().Waiting)

		delete(h.poisoned, "k1")
		h.give(pubsub.Message{ID: "k1", Key: "k1", Header: pubsub.Header{pubsub.HeaderRedrive: "g/1"}})
		elapse(2 * time.Minute)
		require.Equal(t, []string{last + " handler", "next held"}, h.buried()[most+1:])
		require.Zero(t, c.Stats().Held)
		require.NoError(t, stop())
	})
}

func TestRedrivenMessagesAreForTheirGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(delayed)
		var letters []pubsub.Message
		d.publish = func(m []pubsub.Message) []error { letters = append(letters, m...); return nil }
		var seen []pubsub.Message
		c, stop := start(t, d, pubsub.Subscription{Concurrency: 1, MaxAttempts: 2}, func(_ context.Context, m pubsub.Message) error {
			seen = append(seen, m)
			if m.ID == "bad" {
				return errBoom
			}
			return nil
		})
		d.give(redriven("theirs", "gg"), redriven("ours", "g"))
		synctest.Wait()
		require.ElementsMatch(t, []pubsub.Verdict{ack("theirsgg/1"), ack("oursg/1")}, d.given())
		require.Len(t, seen, 1)
		require.Equal(t, "g/1", seen[0].Header[pubsub.HeaderRedrive])
		require.Equal(t, 1, seen[0].Attempt)
		s := c.Stats()
		require.Equal(t, []int64{1, 1, 0}, []int64{s.Skipped, s.Handled, s.Failed})

		bad := redriven("bad", "g")
		for attempt := 1; attempt <= 2; attempt++ {
			bad.Topic, bad.Attempt = "t", attempt
			d.deliveries <- []pubsub.Delivery{{Message: bad, Token: attempt}}
			synctest.Wait()
		}
		require.Len(t, letters, 1)
		require.Equal(t, "bad/g/1", pubsub.DedupID(letters[0]), "or a broker takes it for the first dead letter")
		d.give(pubsub.Message{ID: "read", Header: pubsub.Header{pubsub.HeaderRedrive: "x/1", pubsub.HeaderReason: "attempts"}})
		synctest.Wait()
		require.Equal(t, "read", seen[len(seen)-1].ID, "a dead letter is for everybody who reads them")
		require.NoError(t, stop())
	})
}

func TestTemporaryGroupDropsDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newScripted(pubsub.Capabilities{DelayedNack: true, Temporary: true})
		d.publish = func([]pubsub.Message) []error {
			t.Error("published")
			return nil
		}
		var told []pubsub.DeadLettered
		c, stop := start(t, d, pubsub.Subscription{Topic: "t", Group: "g", Temporary: true, MaxAttempts: 1}, func(context.Context, pubsub.Message) error { return errBoom },
			pubsub.OnDeadLetter(func(l pubsub.DeadLettered) { told = append(told, l) }))
		d.deliver(1, "a")
		synctest.Wait()
		require.Equal(t, []pubsub.Verdict{ack("a")}, d.given())
		require.Len(t, told, 1)
		require.ErrorIs(t, told[0].Err, errBoom)
		s := c.Stats()
		require.Equal(t, []int64{1, 0}, []int64{s.Dropped, s.DeadLettered})
		require.NoError(t, stop())
	})
}
