package mempubsub

import (
	"slices"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// group is the queue of one group of a topic. The topic's mutex guards it. An unordered group has one lane, which all
// members share; an ordered one has several, each owned by at most one member.
type group struct {
	topic   *topic
	ordered bool
	lanes   []lane
	pending int // unsettled messages
	open    int // receivers not closed
	members []*receiver
}

// lane is a queue of unsettled messages in publish order.
type lane struct {
	head, tail *slot
	next       *slot // first one that can be delivered
	leased     int
	epoch      uint64    // counts the times that it began anew
	owner      *receiver // ordered: the only member that may have its messages
	heir       *receiver // ordered: who owns it once the owner has settled what it has
}

// slot is one message in a lane, and its own token. A redelivery gets a new slot, so that verdicts about the old one
// mean nothing.
type slot struct {
	msg          pubsub.Message // Attempt counts the deliveries
	seq          uint64         // position in the lane
	lane         int
	state        slotState
	prev, next   *slot
	holder       *receiver // when leased
	deadline     time.Time
	older, newer *slot // list of the holder's leases by deadline
}

type slotState int

const (
	queued slotState = iota
	leased
	delayed
	gone // settled, or replaced by a new slot
)

func newGroup(t *topic, ordered bool) *group {
	n := 1
	if ordered {
		n = t.cfg.Lanes
	}
	g := &group{topic: t, ordered: ordered, lanes: make([]lane, n)}
	for i := range g.lanes {
		g.lanes[i].epoch = 1
	}
	return g
}

func (g *group) enqueue(m *pubsub.Message) {
	n := laneOf(m.Key, len(g.lanes))
	l := &g.lanes[n]
	s := &slot{msg: *m, lane: n, prev: l.tail}
	s.msg.Attempt = 0
	if l.tail == nil {
		l.head = s
	} else {
		s.seq = l.tail.seq + 1
		l.tail.next = s
	}
	l.tail = s
	if l.next == nil {
		l.next = s
	}
	g.pending++
	g.offer(n)
}

// offer wakes a receiver that waits and may have a message of the lane.
func (g *group) offer(n int) {
	l := &g.lanes[n]
	if l.next == nil {
		return
	}
	if g.ordered {
		if l.owner != nil {
			l.owner.notify()
		}
		return
	}
	for _, r := range g.members {
		if r.waiting {
			r.notify()
			return
		}
	}
}

// take leases up to limit messages to r.
func (g *group) take(r *receiver, limit int, now time.Time) []pubsub.Delivery {
	var out []pubsub.Delivery
	for i := range g.lanes {
		n := (r.turn + i) % len(g.lanes)
		l := &g.lanes[n]
		if g.ordered && (l.owner != r || l.heir != r) {
			continue
		}
		for l.next != nil && len(out) < limit && (!g.ordered || l.leased < r.sub.LaneDepth) {
			if out == nil {
				out = make([]pubsub.Delivery, 0, min(limit, g.pending))
			}
			out = append(out, g.lease(l, r, now))
		}
		if len(out) == limit {
			r.turn = (n + 1) % len(g.lanes)
			break
		}
	}
	return out
}

// lease hands out the lane's next message.
func (g *group) lease(l *lane, r *receiver, now time.Time) pubsub.Delivery {
	s := l.next
	s.state = leased
	l.leased++
	l.skip()
	if s.msg.Attempt++; s.msg.Attempt > 1 {
		g.topic.counts.Redelivered++
	}
	r.hold(s, now.Add(r.sub.Lease))
	return pubsub.Delivery{Message: s.msg, Lane: s.lane, Epoch: l.epoch, Token: s}
}

// skip moves next on to a message that can be delivered.
func (l *lane) skip() {
	for l.next != nil && l.next.state != queued {
		l.next = l.next.next
	}
}

// settle takes a message out for good.
func (g *group) settle(s *slot) {
	l := &g.lanes[s.lane]
	s.holder.drop(s)
	s.state = gone
	if s.prev == nil {
		l.head = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		l.tail = s.prev
	} else {
		s.next.prev = s.prev
	}
	l.leased--
	g.pending--
	g.topic.free()
	g.handOver(l)
	g.offer(s.lane)
}

// giveBack replaces a leased slot by a new one in its place, to be delivered after delay.
func (g *group) giveBack(s *slot, delay time.Duration) {
	l := &g.lanes[s.lane]
	s.holder.drop(s)
	fresh := &slot{msg: s.msg, seq: s.seq, lane: s.lane, prev: s.prev, next: s.next}
	s.state = gone
	if s.prev == nil {
		l.head = fresh
	} else {
		s.prev.next = fresh
	}
	if s.next == nil {
		l.tail = fresh
	} else {
		s.next.prev = fresh
	}
	l.leased--
	if delay <= 0 {
		l.ready(fresh)
	} else {
		fresh.state = delayed
		time.AfterFunc(delay, func() {
			g.topic.mu.Lock()
			defer g.topic.mu.Unlock()
			l.ready(fresh)
			g.offer(fresh.lane)
		})
	}
	g.handOver(l)
	g.offer(s.lane)
}

// ready makes a slot deliverable, before all later ones.
func (l *lane) ready(s *slot) {
	s.state = queued
	if l.next == nil || s.seq < l.next.seq {
		l.next = s
	}
}

// expire gives back a message whose lease ran out; of an ordered lane everything, since what follows must wait for it.
func (g *group) expire(s *slot) {
	g.topic.counts.LeasesExpired++
	if !g.ordered {
		g.giveBack(s, 0)
		return
	}
	l := &g.lanes[s.lane]
	if r := s.holder; !r.waiting { // it may be dead: others first, until it asks for messages again
		g.leave(r)
	}
	for it := l.head; it != nil; {
		next := it.next
		if it.state == leased {
			g.giveBack(it, 0)
		}
		it = next
	}
	l.epoch++
}

// join makes r a member and shares the lanes out anew.
func (g *group) join(r *receiver) {
	if !slices.Contains(g.members, r) {
		g.members = append(g.members, r)
		g.share()
	}
}

func (g *group) leave(r *receiver) {
	if i := slices.Index(g.members, r); i >= 0 {
		g.members = slices.Delete(g.members, i, i+1)
		g.share()
	}
}

// share spreads the lanes evenly over the members. A lane changes hands once its owner has settled.
func (g *group) share() {
	if !g.ordered {
		g.offer(0) // the message that the leaver was woken for
		return
	}
	for i := range g.lanes {
		l := &g.lanes[i]
		l.heir = nil
		if len(g.members) > 0 {
			l.heir = g.members[i%len(g.members)]
		}
		g.handOver(l)
		g.offer(i)
	}
}

func (g *group) handOver(l *lane) {
	if l.leased == 0 && l.owner != l.heir {
		l.owner = l.heir
		l.epoch++
	}
}
