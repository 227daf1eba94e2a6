package mempubsub

import (
	"math"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// slot is what a group knows of a message that was delivered or put off. It is also the token of the delivery: a
// message that is given back gets a new slot, so that verdicts about the old one mean nothing.
type slot struct {
	msg          *pubsub.Message
	seq          uint64        // position in the lane
	due          time.Duration // when the lease ends, or when it is to be delivered
	holder       *receiver     // set while it is leased
	older, newer *slot         // list of the holder's leases, by deadline
	lane         int32
	attempt      int32 // deliveries
}

func bySeq(a, b *slot) bool { return a.seq < b.seq }

func byDue(a, b *slot) bool { return a.due < b.due || a.due == b.due && a.seq < b.seq }

// slots is a binary heap. The order is given with every call and always the same.
type slots []*slot

func (h *slots) push(s *slot, before func(a, b *slot) bool) {
	*h = append(*h, s)
	q := *h
	for i := len(q) - 1; i > 0; {
		up := (i - 1) / 2
		if !before(q[i], q[up]) {
			return
		}
		q[i], q[up] = q[up], q[i]
		i = up
	}
}

func (h *slots) pop(before func(a, b *slot) bool) *slot {
	q := *h
	first, last := q[0], len(q)-1
	q[0], q[last] = q[last], nil
	q = q[:last]
	*h = q
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(q); child++ {
			if before(q[child], q[least]) {
				least = child
			}
		}
		if least == i {
			return first
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
}

// later holds slots back until they are due, all of them with one timer.
type later struct {
	held  slots
	timer *time.Timer
}

// push puts s in; fire is called when the earliest is due.
func (l *later) push(s *slot, now time.Duration, fire func()) {
	l.held.push(s, byDue)
	if l.held[0] == s {
		l.arm(now, fire)
	}
}

// pop takes out a slot that is due, if there is one, and otherwise sets the timer for the next.
func (l *later) pop(now time.Duration, fire func()) *slot {
	if len(l.held) == 0 {
		return nil
	}
	if l.held[0].due > now {
		l.arm(now, fire)
		return nil
	}
	return l.held.pop(byDue)
}

func (l *later) arm(now time.Duration, fire func()) {
	wait := l.held[0].due - now
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, fire)
		return
	}
	l.timer.Reset(wait)
}

func (l *later) stop() {
	l.held = nil
	if l.timer != nil {
		l.timer.Stop()
	}
}

// after is now+d, or the end of time.
func after(now, d time.Duration) time.Duration {
	if d > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + d
}
