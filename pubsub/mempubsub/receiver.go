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

	heed heed

	closed         bool
	member         bool              // of its group: not closed, and not taken for dead
	waiting        bool              // in Receive
	stirred        bool              // one of its lanes may have something
	taken          []pubsub.Delivery // used again by every Receive
	bodies         []*pubsub.Message // what is still to be copied into them
	unused         []slot            // made together they cost less
	turn           int               // the lane to look at first, so that none is starved
	oldest, newest *slot
	timer          *time.Timer // of the oldest lease or an earlier one
	armed          bool        // the timer runs
}

// keptDeliveries is the longest slice that a receiver keeps.
const keptDeliveries = 256

// slotsTogether is how many slots are kept in one piece of memory, until all of them are settled.
const slotsTogether = 16

// Receive implements pubsub.Receiver.
func (r *receiver) Receive(ctx context.Context, limit int) ([]pubsub.Delivery, error) {
	for i := range r.taken { // a receiver that waits holds on to no payload
		d := &r.taken[i]
		d.Header, d.Payload, d.Token = nil, nil, nil
	}
	if cap(r.taken) > keptDeliveries {
		r.taken, r.bodies = nil, nil
	}
	for {
		got, err := r.poll(limit)
		if len(got) > 0 || err != nil {
			r.fill(got)
			return got, err
		}
		r.heed.to(ctx, r.wakeUp)
		if err := ctx.Err(); err != nil {
			r.giveUp()
			return nil, err
		}
		<-r.wake
	}
}

// fill copies the messages into their deliveries. It does so without the mutex, since they come from the cache of another
// processor, while their publisher may need the mutex for the next ones.
func (r *receiver) fill(got []pubsub.Delivery) {
	for i, m := range r.bodies {
		attempt := got[i].Attempt
		got[i].Message = *m
		got[i].Attempt = attempt
	}
	clear(r.bodies)
	r.bodies = r.bodies[:0]
}

// slot is an unused one.
func (r *receiver) slot() *slot {
	if len(r.unused) == 0 {
		r.unused = make([]slot, slotsTogether)
	}
	s := &r.unused[0]
	r.unused = r.unused[1:]
	return s
}

// poll takes what there is, or registers the receiver as waiting.
func (r *receiver) poll(limit int) ([]pubsub.Delivery, error) {
	r.topic.mu.Lock()
	defer r.topic.unlock()
	if r.closed {
		return nil, pubsub.ErrClosed
	}
	now := r.topic.broker.now()
	r.waiting = true
	r.giveBackUntil(now) // or what follows in a lane would be delivered before it, if the timer is late
	if !r.member {       // a lost lease made it look dead
		r.group.join(r)
	}
	got := r.group.take(r, limit, now)
	r.waiting, r.stirred = len(got) == 0, false
	r.passOn()
	return got, nil
}

// giveUp ends the waiting, and passes on a wake-up that came too late.
func (r *receiver) giveUp() {
	r.topic.mu.Lock()
	defer r.topic.unlock()
	r.waiting = false
	r.passOn()
}

// passOn leaves to others what r does not take.
func (r *receiver) passOn() {
	if g := r.group; !g.ordered && g.lanes[0].len() > 0 {
		g.stirred = true
	}
}

func (r *receiver) notify() {
	if !r.waiting {
		return
	}
	r.waiting = false
	r.topic.woken = append(r.topic.woken, r)
}

func (r *receiver) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Settle implements pubsub.Receiver.
func (r *receiver) Settle(_ context.Context, verdicts []pubsub.Verdict) error {
	r.topic.mu.Lock()
	defer r.topic.unlock()
	pending := r.group.pending
	for _, v := range verdicts {
		s, ok := v.Token.(*slot)
		if !ok || s.holder != r {
			continue // settled before, or not its any more
		}
		switch v.Kind {
		case pubsub.Ack:
			r.group.settle(s)
		case pubsub.Nack:
			r.group.giveBack(s, v.Delay)
		case pubsub.Extend:
			r.drop(s)
			s.due = after(r.topic.broker.now(), r.sub.Lease)
			r.hold(s)
		}
	}
	if r.group.pending < pending {
		r.topic.roomy = true
	}
	return nil
}

// Lag implements pubsub.Lagger. Messages that wait for their time, or behind a lane's LaneDepth, are waiting.
func (r *receiver) Lag(context.Context) (pubsub.Lag, error) {
	r.topic.mu.Lock()
	defer r.topic.mu.Unlock()
	leased := 0
	for i := range r.group.lanes {
		leased += r.group.lanes[i].leased
	}
	return pubsub.Lag{Waiting: int64(r.group.pending - leased), Unsettled: int64(leased)}, nil
}

// Close implements pubsub.Receiver.
func (r *receiver) Close() error {
	r.topic.mu.Lock()
	if !r.closed {
		r.closed = true
		r.leave()
	}
	r.topic.unlock()
	r.heed.end()
	r.driver.forget(r)
	return nil
}

// leave gives back what r holds, and ends a temporary group with its last receiver.
func (r *receiver) leave() {
	g := r.group
	g.open--
	g.leave(r)
	for r.oldest != nil {
		g.giveBack(r.oldest, 0)
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	if g.temporary && g.open == 0 {
		r.topic.drop(g)
	}
	r.waiting = false
	r.wakeUp()
}

// hold appends a lease, which is the last to end.
func (r *receiver) hold(s *slot) {
	s.holder = r
	s.older, s.newer = r.newest, nil
	if r.newest == nil {
		r.oldest = s
	} else {
		r.newest.newer = s
	}
	r.newest = s
	if !r.armed {
		r.arm(r.sub.Lease)
	}
}

// arm sets the timer. One serves all leases: it is set for the oldest, and is left alone when that one is settled.
func (r *receiver) arm(d time.Duration) {
	r.armed = true
	if r.timer == nil {
		r.timer = time.AfterFunc(d, r.expire)
		return
	}
	r.timer.Reset(d)
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

// giveBackUntil gives back what was leased too long ago.
func (r *receiver) giveBackUntil(now time.Duration) {
	for r.oldest != nil && r.oldest.due <= now {
		r.group.expire(r.oldest)
	}
}

// expire is called by the timer.
func (r *receiver) expire() {
	r.topic.mu.Lock()
	defer r.topic.unlock()
	now := r.topic.broker.now()
	r.giveBackUntil(now)
	r.armed = false
	if r.oldest != nil {
		r.arm(r.oldest.due - now)
	}
}
