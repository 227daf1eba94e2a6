package kafkapubsub

import (
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// lane is a partition that a member has been assigned: a window of records, from the first unsettled one on. The
// receiver's mutex guards it.
//
// Records have a place in the window, counted from the lane's beginning, apart from their offset: offsets have gaps where
// Kafka has removed records or keeps marks of its own.
type lane struct {
	partition int32
	pulse     *pulse // of the session
	epoch     uint64
	entries   []entry // a ring; its length is a power of two
	first     uint64  // place of the first entry that is kept
	next      uint64  // place of the first that was never delivered, or is to be delivered anew in order
	end       uint64  // place behind the last
	again     []uint64
	held      int // deliveries whose verdict is awaited

	floor  int64 // the offset to commit: of the first unsettled record, -1 while nothing is known
	expect int64 // offset that the next record has at least
	high   int64 // offset behind the last record that was ever delivered
	past   past  // what the members before have committed

	fresh     bool // nothing was delivered since the assignment
	changed   uint64
	committed uint64 // value of changed that the broker knows
	acks      uint64 // records settled
	confirmed uint64 // value of acks that the broker knows
	paused    bool
	queued    bool // in the receiver's list of lanes with something to deliver

	// leaving is set when the partition goes to another member: no handler begins any more.
	leaving atomic.Bool
	gone    bool // it belongs to another member
}

// entry is a record in the window.
type entry struct {
	rec      *kgo.Record // nil once it is settled
	offset   int64
	attempts int       // deliveries so far
	held     *delivery // the latest, while its verdict is awaited
}

// delivery is the token of a record that was handed out.
type delivery struct {
	r     *receiver
	lane  *lane
	place uint64
	until time.Duration // end of the lease
	begun atomic.Bool   // a handler has begun, for all we know
	void  atomic.Bool   // the lease is lost
}

func (l *lane) at(place uint64) *entry { return &l.entries[place&uint64(len(l.entries)-1)] }

func (l *lane) size() int { return int(l.end - l.first) }

// push appends a record, unless the lane has it already.
func (l *lane) push(rec *kgo.Record) {
	if rec.Offset < l.expect {
		return
	}
	if l.floor < 0 {
		l.floor = rec.Offset
	}
	l.expect = rec.Offset + 1
	if l.past.settled(rec.Offset) && l.first == l.end {
		l.floor = l.expect
		l.changed++
		return
	}
	l.reserve(1)
	e := l.at(l.end)
	*e = entry{rec: rec, offset: rec.Offset, attempts: l.past.attempts(rec.Offset)}
	if l.past.settled(rec.Offset) {
		e.rec = nil
	}
	l.end++
}

// reserve makes room for n records more.
func (l *lane) reserve(n int) {
	length := max(64, len(l.entries))
	for length < l.size()+n {
		length *= 2
	}
	if length == len(l.entries) {
		return
	}
	entries := make([]entry, length)
	for p := l.first; p < l.end; p++ {
		entries[p&uint64(len(entries)-1)] = *l.at(p)
	}
	l.entries = entries
}

// take returns the place of the record to deliver next. Ordered, at most depth are held.
func (l *lane) take(depth int) (place uint64, ok bool) {
	if l.leaving.Load() || depth > 0 && l.held >= depth {
		return 0, false
	}
	for len(l.again) > 0 {
		place = l.again[0]
		l.again = l.again[1:]
		if place >= l.first && l.at(place).rec != nil && l.at(place).held == nil {
			return place, true
		}
	}
	for l.next < l.end {
		place = l.next
		l.next++
		if e := l.at(place); e.rec != nil && e.held == nil {
			return place, true
		}
	}
	return 0, false
}

// ready reports whether take may find something.
func (l *lane) ready(depth int) bool {
	return !l.leaving.Load() && (len(l.again) > 0 || l.next < l.end) && (depth == 0 || l.held < depth)
}

// settle notes that the record is done with.
func (l *lane) settle(d *delivery) {
	if d.place < l.first || l.gone {
		return
	}
	e := l.at(d.place)
	if e.rec == nil {
		return
	}
	l.unhold(e)
	e.rec = nil
	l.changed++
	l.acks++
	for l.first < l.end && l.at(l.first).rec == nil {
		l.floor = l.at(l.first).offset + 1
		l.first++
	}
	if l.first < l.end {
		l.floor = l.at(l.first).offset
	} else {
		l.floor = l.expect
	}
	l.next = max(l.next, l.first)
}

// unhold ends the wait for the verdict on an entry.
func (l *lane) unhold(e *entry) {
	if e.held != nil {
		e.held.void.Store(true)
		e.held = nil
		l.held--
	}
}

// giveBack has a record delivered again: ordered, with everything that follows and is not settled, in a new epoch.
func (l *lane) giveBack(place uint64, ordered bool) {
	l.changed++
	if ordered {
		l.anew()
		return
	}
	l.unhold(l.at(place))
	l.again = append(l.again, place)
}

// anew begins with the first unsettled record again.
func (l *lane) anew() {
	for p := l.first; p < l.next; p++ {
		l.unhold(l.at(p))
	}
	l.next = l.first
	l.epoch++
}

// reset forgets all records: the log has changed under them.
func (l *lane) reset() {
	l.anew()
	l.first, l.next, l.again = l.end, l.end, nil
	l.floor, l.expect, l.high, l.past = -1, -1, -1, past{}
}

// expire gives back what has lost its lease.
func (l *lane) expire(now time.Duration, ordered bool) (lost bool) {
	for p := l.first; p < l.end && l.held > 0; p++ {
		e := l.at(p)
		if e.held == nil || e.held.until > now {
			continue
		}
		lost = true
		if l.giveBack(p, ordered); ordered {
			break
		}
	}
	return lost
}

// abandon lets go of deliveries that the consumer said it will not handle, since it asked and was told that the lane
// leaves: of one, or, ordered, of all that have not begun.
func (l *lane) abandon(d *delivery, ordered bool) {
	if l.gone || d.place < l.first {
		return
	}
	if e := l.at(d.place); e.held == d {
		l.unhold(e)
	}
	for p := l.first; ordered && p < l.end; p++ {
		if e := l.at(p); e.held != nil && !e.held.begun.Load() {
			l.unhold(e)
		}
	}
}

// stale is asked by the consumer just before a handler begins.
func (d *delivery) stale() bool {
	d.begun.Store(true) // before it looks: who sets leaving afterwards sees that a handler may have begun
	if d.void.Load() {
		return true
	}
	switch {
	case d.lane.leaving.Load():
		d.r.abandon(d)
	case !d.lane.pulse.alive():
		d.r.doubt(d)
	default:
		return false
	}
	return true
}
