package pubsub

import "time"

// item is one delivery in the hands of a consumer, from Receive until its verdict is given.
type item struct {
	Delivery
	state      itemState
	lost       bool          // the lease ran out: no verdict counts, the broker delivers the message again
	rejections int           // calls that a policy refused
	free       bool          // the attempt just made was refused: it does not count
	local      int           // attempts made here since the delivery, beyond the broker's count
	leaseUntil time.Duration // when the broker may give the message to somebody else
	overdue    time.Duration // from when on the handler's lease is not extended; zero: never
	dead       *death        // set when only the dead letter remains to be published
	skip       bool          // redriven for another group: to be acknowledged unhandled
	verdict    VerdictKind   // on the attempt just made; Extend means that the item stays, in local backoff
	delay      time.Duration
	timer      *time.Timer // of a local backoff
	extended   bool        // the settler may know it
	successor  *item       // next message of the same key
	prev, next *item       // list of all held items, in order of arrival
}

type itemState int

const (
	stateBehind  itemState = iota // an earlier message of the key is unfinished
	stateReady                    // waits for a worker
	stateRunning                  // a worker has it
	stateWaiting                  // in local backoff
)

// attempt is the number of the attempt that is being made or comes next.
func (it *item) attempt() int { return max(it.Attempt, 1) + it.local }

// message is what the handler sees of it.
func (it *item) message() Message {
	m := it.Message
	m.Attempt = it.attempt()
	return m
}

// queue decides which item may be handled next. It is guarded by the consumer's mutex and starts nothing itself.
//
// Unordered, every item is ready on arrival. Ordered, the items of a (lane, key) form a chain of which only the head
// may be ready, running or waiting.
type queue struct {
	ordered bool
	ready   fifo
	running int
	lost    int // leases that ran out
	dropped int // items removed since their lease ran out
	lease   time.Duration
	depth   int             // parked items that make a lane crowded, if there are more
	crowds  int             // crowded lanes
	holds   int             // held keys of all lanes
	tails   map[chain]*item // ordered: last item of every chain
	lanes   map[int]*lane
	held    item    // sentinel of the list of all items
	spare   []*item // to be used again
}

// keptItems bounds what a queue keeps to use again.
const keptItems = 64

type chain struct {
	lane int
	key  string
}

// lane is what the queue knows of a lane; unordered, all is one.
type lane struct {
	parked int    // items that wait for a backoff, their own or that of an earlier message
	epoch  uint64 // latest Epoch seen
	// gap is set while the lane misses messages that were dropped here because their lease was lost or might have
	// been. The broker may not know yet and go on with later messages, which must not be handled before the lost ones
	// have come again: in a later epoch, or, at the latest, when all leases are over.
	gap  time.Duration
	held map[string]struct{} // keys whose messages follow a dead letter unhandled
}

func (q *queue) init(s *Subscription) {
	q.ordered, q.lease, q.depth = s.Ordered, s.Lease, s.LaneDepth
	q.tails = make(map[chain]*item)
	q.lanes = make(map[int]*lane)
	q.held.prev, q.held.next = &q.held, &q.held
}

// item is the item of a new delivery.
func (q *queue) item(d *Delivery) *item {
	last := len(q.spare) - 1
	if last < 0 {
		return &item{Delivery: *d}
	}
	it := q.spare[last]
	q.spare = q.spare[:last]
	it.Delivery, it.state, it.local = *d, stateBehind, 0
	it.dead, it.skip, it.successor = nil, false, nil
	return it
}

// recycle takes back an item that is finished, unless a timer or the settler may still look at it.
func (q *queue) recycle(it *item) {
	if it.timer == nil && !it.extended && !it.lost && len(q.spare) < keptItems {
		it.Header, it.Payload, it.Token = nil, nil, nil // what may be large
		q.spare = append(q.spare, it)
	}
}

// add takes in a new delivery.
func (q *queue) add(it *item, now time.Duration) {
	if q.ordered && q.misplaced(it, now) {
		q.lost++
		return
	}
	last := q.held.prev
	it.prev, it.next, last.next, q.held.prev = last, &q.held, it, it
	if q.ordered {
		c := chain{it.Lane, it.Key}
		tail := q.tails[c]
		q.tails[c] = it
		if tail != nil {
			tail.successor = it
			q.parks(it, 1)
			return
		}
	}
	q.push(it)
}

func (q *queue) push(it *item) {
	it.state = stateReady
	q.ready.push(it)
}

// start hands out the next ready item, or nil. Items whose lease is lost are dropped on the way.
func (q *queue) start(now time.Duration) *item {
	for {
		it := q.ready.pop()
		if it == nil {
			return nil
		}
		if !it.lost && (it.leaseUntil <= now || it.Stale != nil && it.Stale()) {
			q.lose(it, now)
		}
		if it.lost {
			q.dropped++
			q.remove(it)
			continue
		}
		it.state = stateRunning
		q.running++
		return it
	}
}

// park puts a running item into backoff.
func (q *queue) park(it *item) {
	q.running--
	it.state = stateWaiting
	q.parks(it, 1)
}

// due makes an item ready whose backoff is over, and reports false if it is not in backoff any more.
func (q *queue) due(it *item) bool {
	if it.state != stateWaiting {
		return false
	}
	q.parks(it, -1)
	q.push(it)
	return true
}

// finish ends a running item; its key goes on.
func (q *queue) finish(it *item) {
	q.running--
	q.remove(it)
}

// remove takes out the head of its chain and makes the successor ready.
func (q *queue) remove(it *item) {
	it.prev.next, it.next.prev = it.next, it.prev
	if !q.ordered {
		return
	}
	if it.successor != nil {
		q.parks(it, -1)
		q.push(it.successor)
		return
	}
	delete(q.tails, chain{it.Lane, it.Key})
}

// lane returns the state of the item's lane.
func (q *queue) lane(it *item) *lane {
	l := q.lanes[it.Lane]
	if l == nil {
		l = &lane{}
		q.lanes[it.Lane] = l
	}
	return l
}

// misplaced reports whether a delivery of an ordered lane must not be handled, since others have to come before it. It
// is dropped; its lease runs out like theirs. The first delivery of a new epoch makes everything older stale.
func (q *queue) misplaced(it *item, now time.Duration) bool {
	l := q.lane(it)
	if it.Epoch > l.epoch {
		l.epoch, l.gap = it.Epoch, 0
		q.unholdAll(l)
		q.drop(func(other *item) bool { return other.Lane == it.Lane })
	}
	if it.Epoch == l.epoch && now >= l.gap {
		return false
	}
	if l.epoch > 0 { // otherwise what comes again would never be taken
		l.gap = later(now, 2*q.lease)
	}
	return true
}

// lose drops an item whose lease has run out. In an ordered subscription the broker then gives the whole lane anew, so
// everything else of the lane is stale too: handling it first would break the order.
func (q *queue) lose(it *item, now time.Duration) {
	if !q.ordered {
		q.drop(func(other *item) bool { return other == it })
		return
	}
	l := q.lane(it)
	l.gap = later(now, 2*q.lease) // an extension may be under way
	q.unholdAll(l)
	q.drop(func(other *item) bool { return other.Lane == it.Lane })
}

// drop marks the items that pass as lost. They leave when it is their turn.
func (q *queue) drop(pass func(*item) bool) {
	for it := range q.all() {
		if it.lost || !pass(it) {
			continue
		}
		it.lost = true
		q.lost++
		if it.state == stateWaiting {
			it.timer.Stop()
			q.due(it) // so that a worker removes it now
		}
	}
}

// all ranges over the held items in order of arrival.
func (q *queue) all() func(yield func(*item) bool) {
	return func(yield func(*item) bool) {
		for it := q.held.next; it != &q.held; {
			next := it.next
			if !yield(it) {
				return
			}
			it = next
		}
	}
}

// parks counts n items more, or fewer, that wait in the item's lane.
func (q *queue) parks(it *item, n int) {
	l := q.lane(it)
	was := l.parked > q.depth
	l.parked += n
	switch is := l.parked > q.depth; {
	case is && !was:
		q.crowds++
	case was && !is:
		q.crowds--
	}
}

// crowded reports whether some lane has more parked items than its depth. A driver that keeps to LaneDepth never lets
// an ordered lane get there; unordered, it means that too much is failing to take in more.
func (q *queue) crowded() bool { return q.crowds > 0 }

// fifo is a queue of items on a slice that is used again.
type fifo struct {
	items []*item
	head  int
}

func (f *fifo) push(it *item) {
	if len(f.items) == cap(f.items) && f.head > len(f.items)/2 {
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, it)
}

func (f *fifo) pop() *item {
	if f.head == len(f.items) {
		return nil
	}
	it := f.items[f.head]
	f.items[f.head] = nil
	f.head++
	if f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	}
	return it
}

func (f *fifo) len() int { return len(f.items) - f.head }
