package mempubsub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// held is a message in a group, as the oracle has it.
type held struct {
	pubsub.Message
	lane     int
	attempts int
	holder   *member // nil if nobody has it
	token    any
	deadline time.Time // of the lease
	notUntil time.Time // end of a delay
}

// crowd is a group, as the oracle has it.
type crowd struct {
	sub     pubsub.Subscription
	exists  bool
	queue   []*held // unsettled, in order
	future  []*held // by DeliverAt
	members []*member
	epochs  map[int]uint64  // latest of a lane
	owners  map[int]*member // who had the lane in that epoch
	anew    map[int]bool    // the lane was lost since
}

// member is an open receiver; a Receive runs while waiting is set.
type member struct {
	crowd   *crowd
	r       pubsub.Receiver
	waiting bool
	limit   int
	cancel  context.CancelFunc
	result  chan received
}

type received struct {
	got []pubsub.Delivery
	err error
}

func (c *crowd) add(m *machine, msg pubsub.Message) {
	h := &held{Message: msg}
	if c.sub.Ordered {
		h.lane = m.lanes[msg.Key]
	}
	if !msg.DeliverAt.After(time.Now()) {
		c.queue = append(c.queue, h)
		return
	}
	c.future = append(c.future, h)
	slices.SortStableFunc(c.future, func(a, b *held) int { return a.DeliverAt.Compare(b.DeliverAt) })
}

func (who *member) receive(limit int) {
	var ctx context.Context
	ctx, who.cancel = context.WithCancel(context.Background())
	who.waiting, who.limit, who.result = true, limit, make(chan received, 1)
	go func(result chan received) {
		got, err := who.r.Receive(ctx, limit)
		result <- received{got, err}
	}(who.result)
}

// ended is for a Receive that must have ended with an error.
func (who *member) ended(want error) error {
	select {
	case res := <-who.result:
		who.waiting = false
		if len(res.got) > 0 || !errors.Is(res.err, want) {
			return fmt.Errorf("receive ended with %v, %w", ids(res.got), res.err)
		}
		return nil
	default:
		return fmt.Errorf("receive does not end with %w", want)
	}
}

func (c *crowd) deliverable() (out []*held) {
	for _, h := range c.queue {
		if h.holder == nil && !h.notUntil.After(time.Now()) {
			out = append(out, h)
		}
	}
	return out
}

// harvest takes in the results of Receive.
func (c *crowd) harvest(exact bool) error {
	there, taken := c.deliverable(), 0
	for _, who := range c.members {
		if !who.waiting {
			continue
		}
		select {
		case res := <-who.result:
			who.waiting = false
			if res.err != nil && !errors.Is(res.err, context.Canceled) || len(res.got) > who.limit {
				return fmt.Errorf("receive of %d: %v, %w", who.limit, ids(res.got), res.err)
			}
			for _, d := range res.got {
				if err := c.deliver(who, d); err != nil {
					return fmt.Errorf("delivery of %s (lane %d, epoch %d): %w", d.ID, d.Lane, d.Epoch, err)
				}
			}
			taken += len(res.got)
		default:
		}
	}
	if !exact || c.sub.Ordered {
		return nil
	}
	for i, h := range there {
		if (h.holder != nil) != (i < taken) {
			return fmt.Errorf("%d were delivered, and not the first of those there", taken)
		}
	}
	return nil
}

func (c *crowd) deliver(who *member, d pubsub.Delivery) error {
	i := slices.IndexFunc(c.queue, func(h *held) bool { return h.ID == d.ID })
	if i < 0 {
		return errors.New("the group does not have it")
	}
	h := c.queue[i]
	if h.holder != nil || h.notUntil.After(time.Now()) {
		return errors.New("it was not to be delivered")
	}
	if h.attempts++; d.Attempt != h.attempts || d.Lane != h.lane || d.Key != h.Key {
		return fmt.Errorf("attempt %d of key %q, expected %d of %q in lane %d", d.Attempt, d.Key, h.attempts, h.Key, h.lane)
	}
	h.holder, h.token, h.deadline = who, d.Token, time.Now().Add(machineLease)
	if c.sub.Ordered {
		return c.inOrder(who, d, i)
	}
	return nil
}

// inOrder checks a delivery of an ordered lane: whoever gets it holds all that is before it, and nobody else has any of
// the lane.
func (c *crowd) inOrder(who *member, d pubsub.Delivery, i int) error {
	depth := 0
	for j, h := range c.queue {
		switch {
		case h.lane != d.Lane:
		case h.holder == who:
			depth++
		case h.holder != nil:
			return errors.New("another member has the lane")
		case j < i:
			return fmt.Errorf("%s comes before it", h.ID)
		}
	}
	if depth > machineDepth {
		return fmt.Errorf("the member has %d messages of the lane", depth)
	}
	epoch, owner := c.epochs[d.Lane], c.owners[d.Lane]
	if d.Epoch < epoch || d.Epoch == epoch && (c.anew[d.Lane] || owner != who) {
		return fmt.Errorf("the epoch was %d before", epoch)
	}
	c.epochs[d.Lane], c.owners[d.Lane], c.anew[d.Lane] = d.Epoch, who, false
	return nil
}

// nothingIsLeft checks that nobody waits for what is there.
func (c *crowd) nothingIsLeft() error {
	waiting := 0
	for _, who := range c.members {
		if who.waiting {
			waiting++
		}
	}
	if waiting == 0 || c.sub.Ordered && waiting < len(c.members) { // the others may own the lanes
		return nil
	}
	taken := make(map[int]int) // of a lane
	for _, h := range c.queue {
		if h.holder != nil {
			taken[h.lane]++
		}
	}
	for _, h := range c.deliverable() {
		n := taken[h.lane] // none of it may be had by somebody else, and no more than fit
		if !c.sub.Ordered || n == 0 || len(c.members) == 1 && n < machineDepth {
			return fmt.Errorf("%d members wait, and %s is there", waiting, h.ID)
		}
	}
	return nil
}
