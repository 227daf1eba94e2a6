package mempubsub

import (
	"fmt"
	"slices"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// group is the queue of one group of a topic. The topic's mutex guards it. An unordered group has one lane, which all
// members share; an ordered one has several, each owned by at most one member.
type group struct {
	pending   int  // unsettled messages
	limit     int  // of them
	stirred   bool // something may have become deliverable since the last offer
	ordered   bool
	temporary bool
	lanes     []lane
	members   []*receiver
	one       [1]lane // of an unordered group
	topic     *topic
	name      string
	full      *Error // what Publish returns when there is no room
	delayed   later  // given back with a delay, until it is over
	scheduled later  // not yet in their lane, on the wall clock as DeliverAt is
	asked     uint64
	open      int // receivers not closed
}

// lane is a queue of messages in publish order. What was given back is older than all that are fresh.
type lane struct {
	again  slots // given back, by seq
	fresh  fifo[*pubsub.Message]
	taken  uint64 // seq of the next fresh one
	leased int
	epoch  uint64    // counts the times that it began anew
	owner  *receiver // ordered: the only member that may have its messages
	heir   *receiver // ordered: who owns it once the owner has settled what it has
}

func (l *lane) len() int { return len(l.again) + l.fresh.n }

func newGroup(t *topic, s pubsub.Subscription) *group {
	limit := t.broker.cfg.MaxPending
	g := &group{
		topic: t, name: s.Group, ordered: s.Ordered, temporary: s.Temporary, limit: limit,
		full: &Error{Topic: t.name, Group: s.Group, Limit: limit, what: "unsettled messages (MaxPending)"},
	}
	g.lanes = g.one[:]
	if s.Ordered {
		g.lanes = make([]lane, t.broker.cfg.Lanes)
	}
	for i := range g.lanes {
		g.lanes[i].epoch = 1
	}
	return g
}

// fits says what a further member has against the group.
func (g *group) fits(s pubsub.Subscription) error {
	const format = "mempubsub: group %q of topic %q exists with %s %v: remove it to change that"
	switch {
	case g.ordered != s.Ordered:
		return fmt.Errorf(format, s.Group, s.Topic, "Ordered", g.ordered)
	case g.temporary != s.Temporary:
		return fmt.Errorf(format, s.Group, s.Topic, "Temporary", g.temporary)
	}
	return nil
}

// add takes in a message of the topic: at once, or when its time comes.
func (g *group) add(m *pubsub.Message) {
	g.pending++
	if !m.DeliverAt.IsZero() {
		now, due := g.topic.broker.wall(time.Now()), g.topic.broker.wall(m.DeliverAt)
		if due > now {
			g.scheduled.push(&slot{msg: m, seq: g.asked, due: due}, now, g.onSchedule)
			g.asked++ // messages of the same time keep their order
			return
		}
	}
	g.enqueue(m)
}

func (g *group) enqueue(m *pubsub.Message) {
	l := &g.lanes[laneOf(m.Key, len(g.lanes))]
	l.fresh.push(m)
	g.stir(l)
}

// onSchedule queues messages whose DeliverAt has come, behind those that are there.
func (g *group) onSchedule() {
	g.topic.mu.Lock()
	defer g.topic.unlock()
	now := g.topic.broker.wall(time.Now())
	for s := g.scheduled.pop(now, g.onSchedule); s != nil; s = g.scheduled.pop(now, g.onSchedule) {
		g.enqueue(s.msg)
	}
}

// onDelay makes messages deliverable whose delay is over.
func (g *group) onDelay() {
	g.topic.mu.Lock()
	defer g.topic.unlock()
	now := g.topic.broker.now()
	for s := g.delayed.pop(now, g.onDelay); s != nil; s = g.delayed.pop(now, g.onDelay) {
		g.requeue(s)
	}
}

func (g *group) requeue(s *slot) {
	l := &g.lanes[s.lane]
	l.again.push(s, bySeq)
	g.stir(l)
}

// stir notes that the lane may have something for its owner, or for anybody. They hear of it when the topic is unlocked,
// so that many messages make one wake-up.
func (g *group) stir(l *lane) {
	g.stirred = true
	if l.owner != nil {
		l.owner.stirred = true
	}
}

// offer notifies the owners of lanes that were stirred, or one receiver, which leaves the rest to another.
func (g *group) offer() {
	if !g.stirred {
		return
	}
	g.stirred = false
	if g.ordered {
		for _, r := range g.members {
			if r.stirred {
				r.stirred = false
				r.notify()
			}
		}
		return
	}
	if g.lanes[0].len() == 0 {
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
func (g *group) take(r *receiver, limit int, now time.Duration) []pubsub.Delivery {
	there := 0
	for i := range g.lanes {
		there += g.lanes[i].available(r)
	}
	limit = min(limit, there)
	if limit == 0 {
		return nil
	}
	out := slices.Grow(r.taken[:0], limit)
	due := after(now, r.sub.Lease)
	for i := range g.lanes {
		n := (r.turn + i) % len(g.lanes)
		l := &g.lanes[n]
		for count := min(l.available(r), limit-len(out)); count > 0; count-- {
			s := l.next(r)
			s.lane, s.due = int32(n), due
			out = out[:len(out)+1]
			g.lease(l, s, r, &out[len(out)-1])
		}
		if len(out) == limit {
			r.turn = (n + 1) % len(g.lanes)
			break
		}
	}
	r.taken = out
	return out
}

// available is the number of messages that r may have of the lane now.
func (l *lane) available(r *receiver) int {
	n := l.len()
	if r.sub.Ordered {
		if l.owner != r || l.heir != r {
			return 0
		}
		n = min(n, max(0, r.sub.LaneDepth-l.leased))
	}
	return n
}

// next takes the lane's next message out of its queue; a fresh one gets one of r's unused slots.
func (l *lane) next(r *receiver) *slot {
	if len(l.again) > 0 {
		return l.again.pop(bySeq)
	}
	s := r.slot()
	s.msg, s.seq = l.fresh.pop(), l.taken
	l.taken++
	return s
}

// lease hands s out as d, whose message r fills in.
func (g *group) lease(l *lane, s *slot, r *receiver, d *pubsub.Delivery) {
	l.leased++
	if s.attempt++; s.attempt > 1 {
		g.topic.counts.Redelivered++
	}
	r.hold(s)
	r.bodies = append(r.bodies, s.msg)
	d.Attempt, d.Lane, d.Epoch, d.Token = int(s.attempt), int(s.lane), l.epoch, s
}

// settle takes a message out for good.
func (g *group) settle(s *slot) {
	g.pending--
	g.letGo(s)
}

// giveBack makes a leased message wait for delay, and then for its next delivery.
func (g *group) giveBack(s *slot, delay time.Duration) {
	again := &slot{msg: s.msg, seq: s.seq, lane: s.lane, attempt: s.attempt}
	if delay > 0 {
		now := g.topic.broker.now()
		again.due = after(now, delay)
		g.delayed.push(again, now, g.onDelay)
	} else {
		g.requeue(again)
	}
	g.letGo(s)
}

// letGo ends a lease.
func (g *group) letGo(s *slot) {
	s.holder.drop(s)
	s.holder, s.msg = nil, nil
	l := &g.lanes[s.lane]
	l.leased--
	g.handOver(l)
	if g.ordered { // the lane has more room
		g.stir(l)
	}
}

// expire gives back a message whose lease ran out; of an ordered lane everything, since what follows must wait for it.
func (g *group) expire(s *slot) {
	g.topic.counts.LeasesExpired++
	if !g.ordered {
		g.giveBack(s, 0)
		return
	}
	r := s.holder
	if !r.waiting { // it may be dead: others first, until it asks for messages again
		g.leave(r)
	}
	lane := s.lane
	for it := r.oldest; it != nil; {
		next := it.newer
		if it.lane == lane {
			g.giveBack(it, 0)
		}
		it = next
	}
	g.lanes[lane].epoch++
}

// join makes r a member and shares the lanes out anew.
func (g *group) join(r *receiver) {
	r.member = true
	g.members = append(g.members, r)
	g.share()
}

func (g *group) leave(r *receiver) {
	if !r.member {
		return
	}
	r.member = false
	g.members = slices.DeleteFunc(g.members, func(other *receiver) bool { return other == r })
	g.share()
}

// share spreads the lanes evenly over the members. A lane changes hands once its owner has settled.
func (g *group) share() {
	g.stirred = true // there may be a message that the leaver was woken for
	if !g.ordered {
		return
	}
	for i := range g.lanes {
		l := &g.lanes[i]
		l.heir = nil
		if len(g.members) > 0 {
			l.heir = g.members[i%len(g.members)]
		}
		g.handOver(l)
		g.stir(l)
	}
}

// handOver gives the lane to its heir. Without one it stays, so that an owner that comes back goes on where it was.
func (g *group) handOver(l *lane) {
	if l.leased == 0 && l.heir != nil && l.owner != l.heir {
		l.owner = l.heir
		l.epoch++
		g.stir(l)
	}
}
