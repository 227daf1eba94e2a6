package natspubsub

import (
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

type entryState uint8

const (
	entryWaiting entryState = iota
	entryHeld               // delivered, not settled
	entryAcked
)

// entry is a message of a lane.
type entry struct {
	msg   *nats.Msg // nil once it is acknowledged
	from  origin
	state entryState
	tries int           // deliveries before
	until time.Duration // when the lease ends
	token *laneToken    // of the delivery that counts
}

// laneToken is the token of one delivery. It counts as long as it is that of its entry.
type laneToken struct {
	lane  *lane
	entry *entry
}

// windowMost bounds the messages of a lane that are known behind an unsettled one.
const windowMost = 4096

// lane is what a member knows of a lane, and has in hand if it owns it. It is guarded by the receiver's mutex.
type lane struct {
	index   int
	subject string // of its messages

	record   laneRecord // as last read or written
	revision uint64     // of the record
	known    bool
	seen     time.Duration // when that revision was seen first

	owned     bool
	leaving   bool          // no more is delivered of it, and it is released when all is settled
	confirmed time.Duration // when the last write of the record began that the server has accepted: the lease
	written   time.Duration // when the last write began
	acks      uint64        // acknowledgements since the lane was taken
	committed uint64        // those of them that are in the record
	lost      *atomic.Bool  // shared with the deliveries of this ownership
	stale     func() bool   // reads it

	epoch   uint64   // of deliveries
	entries []*entry // in the order of the stream, from the first that is not settled on
	cursor  int      // those before are held or acknowledged
	held    int
	floor   uint64
	last    uint64 // the last message that has arrived, or floor
	carried []span // acknowledged before the lane was taken, and not yet arrived
	tries   map[uint64]int
	careful int // messages that are delivered one at a time, for one of them may have killed the owner before
	begun   bool

	reader string // the consumer that the messages come from, if there is one
	number uint64 // of the last message that came from it
	pull   pull
}

// take makes the lane the member's, with what the record says.
func (l *lane) take(rec laneRecord, revision uint64, confirmed time.Duration, depth int, died bool) {
	l.record, l.revision, l.known, l.seen = rec, revision, true, confirmed
	l.owned, l.leaving = true, false
	l.confirmed, l.written = confirmed, confirmed
	l.acks, l.committed = 0, 0
	l.lost = new(atomic.Bool)
	l.stale = l.lost.Load
	l.epoch++
	l.entries, l.cursor, l.held = nil, 0, 0
	l.floor, l.last = rec.Floor, rec.Floor
	l.carried = rec.Acked
	l.tries = make(map[uint64]int)
	for _, t := range rec.Tries {
		l.tries[t[0]] = int(t[1])
	}
	l.careful, l.begun = 0, false
	if died || rec.Deaths > 0 {
		l.careful = depth
	}
	l.reader = ""
}

// drop ends the ownership; what was delivered is stale.
func (l *lane) drop() {
	if !l.owned {
		return
	}
	l.lost.Store(true)
	for _, e := range l.entries {
		e.token = nil
	}
	l.owned, l.leaving = false, false
	l.entries, l.cursor, l.held = nil, 0, 0
	l.carried, l.tries = nil, nil
}

// arrive takes in the next message of the lane.
func (l *lane) arrive(m *nats.Msg, from origin) {
	l.last = from.sequence
	e := &entry{msg: m, from: from, tries: l.tries[from.sequence]}
	delete(l.tries, from.sequence)
	for len(l.carried) > 0 && l.carried[0][1] < from.sequence {
		l.carried = l.carried[1:]
	}
	if len(l.carried) > 0 && l.carried[0][0] <= from.sequence {
		e.state, e.msg = entryAcked, nil
	} else {
		l.suspect(e)
	}
	l.entries = append(l.entries, e)
	l.advance()
}

// suspect counts what those did not live to count who had the lane before. Any of the first messages may have been
// delivered by then; the first one was, if they all found it unsettled.
func (l *lane) suspect(e *entry) {
	if l.careful > len(l.entries) {
		e.tries = max(e.tries, 1)
	}
	if !l.begun {
		l.begun = true
		e.tries = max(e.tries, l.record.Deaths)
	}
}

// next is the first message that can be delivered, if there is one.
func (l *lane) next(depth int) *entry {
	if l.careful > 0 {
		depth = 1
	}
	for l.cursor < len(l.entries) && l.cursor < windowMost {
		e := l.entries[l.cursor]
		if e.state == entryWaiting {
			if l.held >= depth {
				return nil
			}
			return e
		}
		l.cursor++
	}
	return nil
}

// hold notes the delivery of what next has returned.
func (l *lane) hold(e *entry, t *laneToken, until time.Duration) {
	*t = laneToken{l, e}
	e.state, e.token, e.until = entryHeld, t, until
	e.tries++
	l.cursor++
	l.held++
}

// ack settles a delivery.
func (l *lane) ack(e *entry) {
	e.state, e.token, e.msg = entryAcked, nil, nil
	l.held--
	l.acks++
	l.careful = max(l.careful-1, 0)
	l.advance()
}

// advance forgets the settled messages at the beginning.
func (l *lane) advance() {
	n := 0
	for n < len(l.entries) && l.entries[n].state == entryAcked {
		l.floor = l.entries[n].from.sequence
		l.entries[n] = nil
		n++
	}
	l.entries = l.entries[n:]
	l.cursor = max(l.cursor-n, 0)
}

// anew makes all that is held come again, in a new epoch.
func (l *lane) anew() {
	for _, e := range l.entries {
		if e.state == entryHeld {
			e.state, e.token = entryWaiting, nil
		}
	}
	l.cursor, l.held = 0, 0
	l.epoch++
}

// expire begins anew if a lease has run out, and reports it.
func (l *lane) expire(now time.Duration) bool {
	if l.held == 0 {
		return false
	}
	for _, e := range l.entries[:l.cursor] {
		if e.state == entryHeld && e.until <= now {
			l.anew()
			return true
		}
	}
	return false
}

// state is the record to write; released, without an owner.
func (l *lane) state(released bool) laneRecord {
	rec := l.record
	rec.Floor, rec.Acked, rec.Tries = l.floor, l.ranges(), nil
	if rec.Floor > 0 {
		rec.Start = nil
	}
	if rec.Floor != rec.DeathFloor {
		rec.Deaths = 0
	}
	if !released {
		return rec
	}
	rec.Owner = ""
	for _, e := range l.entries {
		if e.state != entryAcked && e.tries > 0 {
			rec.Tries = append(rec.Tries, span{e.from.sequence, uint64(e.tries)})
		}
	}
	for seq, n := range l.tries {
		rec.Tries = append(rec.Tries, span{seq, uint64(n)})
	}
	return rec
}

// ranges are the acknowledged messages behind the first that is not.
func (l *lane) ranges() []span {
	var out []span
	open := false
	for _, e := range l.entries {
		switch {
		case e.state != entryAcked:
			open = false
		case open:
			out[len(out)-1][1] = e.from.sequence
		default:
			out, open = append(out, span{e.from.sequence, e.from.sequence}), true
		}
	}
	for _, s := range l.carried {
		if s[1] > l.last {
			out = append(out, span{max(s[0], l.last+1), s[1]})
		}
	}
	return out
}
