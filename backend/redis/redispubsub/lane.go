package redispubsub

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// tenure is the time during which a member has a lane, under the server's lease. All but the atomics is guarded by the
// receiver's lock.
//
// Its entries are those behind the cursor, in order: some settled ahead of others, then delivered ones, then counted
// ones, then those that were fetched only. What is delivered is counted at the server before, so that a message which
// kills every process that handles it is known by its attempts.
type tenure struct {
	lane    int
	token   string // what the server knows the tenure by; it grows with every one, and when the lane begins anew
	epoch   uint64
	until   atomic.Int64 // when the lease ends, if it is not renewed
	lost    atomic.Bool
	now     func() time.Duration
	isStale func() bool // stale
	cursor  streamID    // everything up to here is settled
	read    streamID    // everything up to here is fetched

	entries   []*entry
	next      int // first entry that is not delivered
	counted   int // first entry that is not counted
	unsettled int // delivered and not settled
	marks     []mark
	beyond    map[streamID]bool // settled under an earlier tenure, ahead of the cursor

	dirty   int  // settled here, and not yet at the server
	rewind  bool // begins anew as soon as the server agrees: nothing is delivered until then
	leaving bool // goes to another member once nothing is unsettled
}

// mark says that everything up to an entry was counted once more, or several times.
type mark struct {
	upTo  streamID
	times int
}

type entry struct {
	id        streamID
	msg       pubsub.Message
	delivered bool
	settled   bool
	epoch     uint64
	ends      time.Duration // of the lease of this delivery
}

// ticket is the token of a delivery.
type ticket struct {
	tenure *tenure
	entry  *entry
	epoch  uint64
}

func newTenure(t taken, until time.Duration, now func() time.Duration) (*tenure, error) {
	n := &tenure{lane: t.lane, now: now, beyond: make(map[streamID]bool)}
	n.isStale = n.stale
	n.until.Store(int64(until))
	if err := n.setToken(t.token); err != nil {
		return nil, err
	}
	var err error
	if n.cursor, err = parseID(t.cursor); err != nil {
		return nil, err
	}
	n.read = n.cursor
	for text := range strings.FieldsSeq(t.beyond) {
		id, err := parseID(text)
		if err != nil {
			return nil, err
		}
		n.beyond[id] = true
	}
	for text := range strings.FieldsSeq(t.marks) {
		at, times, many := strings.Cut(text, "*")
		m := mark{times: 1}
		if m.upTo, err = parseID(at); err != nil {
			return nil, err
		}
		if many {
			if m.times, err = strconv.Atoi(times); err != nil {
				return nil, err
			}
		}
		n.mark(m)
	}
	return n, nil
}

func (n *tenure) setToken(token string) error {
	epoch, err := strconv.ParseUint(token, 10, 64)
	if err != nil {
		return fmt.Errorf("%w: token %q", errAnswer, token)
	}
	n.token, n.epoch = token, epoch
	return nil
}

// mark adds m, unless it says nothing about what is not settled.
func (n *tenure) mark(m mark) {
	if m.upTo.compare(n.cursor) <= 0 {
		return
	}
	for i := range n.marks {
		if n.marks[i].upTo == m.upTo {
			n.marks[i].times += m.times
			return
		}
	}
	n.marks = append(n.marks, m)
}

// attempt is the number of the delivery of an entry.
func (n *tenure) attempt(id streamID) int {
	attempt := 1
	for _, m := range n.marks {
		if id.compare(m.upTo) <= 0 {
			attempt += m.times
		}
	}
	return attempt
}

// stale reports whether the lane may have gone to another member.
func (n *tenure) stale() bool { return n.lost.Load() || n.now() >= time.Duration(n.until.Load()) }

// append takes in an entry that was fetched.
func (n *tenure) append(id streamID, m pubsub.Message) {
	if id.compare(n.read) <= 0 {
		return // fetched twice
	}
	n.read = id
	e := &entry{id: id, msg: m}
	if n.beyond[id] {
		delete(n.beyond, id)
		e.settled = true
	}
	n.entries = append(n.entries, e)
	n.advance()
}

// fresh is the number of entries that are fetched and not delivered.
func (n *tenure) fresh() int { return len(n.entries) - n.next }

// deliver hands out the next entry, or nil.
func (n *tenure) deliver(depth int, lease time.Duration) *entry {
	if n.rewind || n.leaving || n.unsettled >= depth || n.stale() {
		return nil
	}
	for n.next < n.counted {
		e := n.entries[n.next]
		n.next++
		if e.settled {
			continue
		}
		e.delivered, e.epoch, e.ends = true, n.epoch, n.now()+lease
		e.msg.Attempt = n.attempt(e.id)
		n.unsettled++
		return e
	}
	n.advance()
	return nil
}

// countable is the number of entries that may be counted now, so that most can be delivered.
func (n *tenure) countable(depth, most int) int {
	if n.rewind || n.leaving {
		return 0
	}
	return max(min(len(n.entries)-n.counted, depth-n.unsettled-(n.counted-n.next), most), 0)
}

// settle notes that an entry is handled, under whatever epoch of the tenure.
func (n *tenure) settle(e *entry) {
	if e.settled {
		return
	}
	e.settled = true
	n.dirty++
	if e.delivered {
		e.delivered = false
		n.unsettled--
	}
	n.advance()
}

// advance drops the settled entries at the beginning.
func (n *tenure) advance() {
	k := 0
	for k < len(n.entries) && n.entries[k].settled {
		n.cursor = n.entries[k].id
		n.entries[k] = nil
		k++
	}
	if k == 0 {
		return
	}
	n.entries = n.entries[k:]
	n.next, n.counted = max(n.next-k, 0), max(n.counted-k, 0)
	for i := 0; i < len(n.marks); {
		if n.marks[i].upTo.compare(n.cursor) <= 0 {
			n.marks = append(n.marks[:i], n.marks[i+1:]...)
			continue
		}
		i++
	}
}

// lapsed reports whether a delivery has lost its lease here.
func (n *tenure) lapsed(now time.Duration) bool {
	for _, e := range n.entries[:n.next] {
		if e.delivered && e.ends <= now {
			return true
		}
	}
	return false
}

// high is the ID up to which entries are counted, or "".
func (n *tenure) high(upTo int) string {
	if upTo == 0 {
		return ""
	}
	return n.entries[upTo-1].id.String()
}

// ahead lists what is settled behind the cursor.
func (n *tenure) ahead() string {
	var b strings.Builder
	for _, e := range n.entries {
		if e.settled {
			b.WriteString(e.id.String())
			b.WriteByte(' ')
		}
	}
	for id := range n.beyond {
		if id.compare(n.cursor) > 0 {
			b.WriteString(id.String())
			b.WriteByte(' ')
		}
	}
	return b.String()
}

func (n *tenure) marksText() string {
	var b strings.Builder
	for _, m := range n.marks {
		fmt.Fprintf(&b, "%s*%d ", m.upTo, m.times)
	}
	return b.String()
}

// anew lets the lane begin with its first unsettled entry, under a new token. Deliveries of before are stale.
func (n *tenure) anew(token string) error {
	if n.counted > 0 {
		n.mark(mark{n.entries[n.counted-1].id, 1})
	}
	for _, e := range n.entries {
		e.delivered = false
	}
	n.next, n.counted, n.unsettled, n.rewind = 0, 0, 0, false
	return n.setToken(token)
}
