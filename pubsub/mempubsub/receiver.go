package mempubsub

import (
	"context"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// receiver is a member of a group. The topic's mutex guards all that changes.
type receiver struct {
	driver *Driver
	topic  *topic
	group  *group
	sub    pubsub.Subscription
	wake   chan struct{} // capacity 1
	done   chan struct{} // closed by Close

	closed         bool
	waiting        bool // in Receive
	turn           int  // the lane to look at first, so that none is starved
	oldest, newest *slot
	timer          *time.Timer // runs while there are leases
}

// Receive implements pubsub.Receiver.
func (r *receiver) Receive(ctx context.Context, limit int) ([]pubsub.Delivery, error) {
	for {
		got, err := r.poll(limit)
		if len(got) > 0 || err != nil {
			return got, err
		}
		select {
		case <-r.wake:
		case <-r.done:
		case <-ctx.Done():
			r.giveUp()
			return nil, ctx.Err()
		}
	}
}

// poll takes what there is, or registers the receiver as waiting.
func (r *receiver) poll(limit int) ([]pubsub.Delivery, error) {
	r.topic.mu.Lock()
	defer r.topic.mu.Unlock()
	if r.closed {
		return nil, pubsub.ErrClosed
	}
	r.group.join(r) // again, if a lost lease made it look dead
	got := r.group.take(r, limit, time.Now())
	r.waiting = len(got) == 0
	if !r.waiting && !r.group.ordered {
		r.group.offer(0) // leave the rest to another
	}
	return got, nil
}

// giveUp ends the waiting, and passes on a wake-up that came too late.
func (r *receiver) giveUp() {
	r.topic.mu.Lock()
	defer r.topic.mu.Unlock()
	r.waiting = false
	if !r.group.ordered {
		r.group.offer(0)
	}
}

func (r *receiver) notify() {
	if !r.waiting {
		return
	}
	r.waiting = false
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Settle implements pubsub.Receiver.
func (r *receiver) Settle(_ context.Context, verdicts []pubsub.Verdict) error {
	r.topic.mu.Lock()
	defer r.topic.mu.Unlock()
	now := time.Now()
	for _, v := range verdicts {
		s, ok := v.Token.(*slot)
		if !ok || s.state != leased || s.holder != r {
			continue // settled before, or not its any more
		}
		switch v.Kind {
		case pubsub.Ack:
			r.group.settle(s)
		case pubsub.Nack:
			r.group.giveBack(s, v.Delay)
		case pubsub.Extend:
			r.drop(s)
			r.hold(s, now.Add(r.sub.Lease))
		}
	}
	return nil
}

// Close implements pubsub.Receiver.
func (r *receiver) Close() error {
	r.topic.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.done)
		r.group.open--
		r.group.leave(r)
		for r.oldest != nil {
			r.group.giveBack(r.oldest, 0)
		}
		if r.timer != nil {
			r.timer.Stop()
		}
	}
	r.topic.mu.Unlock()
	r.driver.forget(r)
	return nil
}

// hold appends a lease, which has the latest deadline of all.
func (r *receiver) hold(s *slot, deadline time.Time) {
	s.holder, s.deadline = r, deadline
	s.older, s.newer = r.newest, nil
	if r.newest == nil {
		r.oldest = s
	} else {
		r.newest.newer = s
	}
	r.newest = s
	if r.timer == nil {
		r.timer = time.AfterFunc(r.sub.Lease, r.expire)
	}
}

// drop takes a lease out of the list.
func (r *receiver) drop(s *slot) {
	if s.older == nil {
		r.oldest = s.newer
	} else {
		s.older.newer = s.newer
	}
	if s.newer == nil {
		r.newest = s.older
	} else {
		s.newer.older = s.older
	}
	s.older, s.newer = nil, nil
}

// expire gives back what was leased too long ago. One timer serves all leases: it is set for the oldest.
func (r *receiver) expire() {
	r.topic.mu.Lock()
	defer r.topic.mu.Unlock()
	now := time.Now()
	for r.oldest != nil && !r.oldest.deadline.After(now) {
		r.group.expire(r.oldest)
	}
	r.timer = nil
	if r.oldest != nil {
		r.timer = time.AfterFunc(r.oldest.deadline.Sub(now), r.expire)
	}
}
