package rabbitpubsub

import (
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/backstay-go/backstay/pubsub"
)

// confirmEvery is how long acknowledgements go without a round trip that confirms them.
const confirmEvery = time.Second

const (
	// tellDelay is how long an acknowledgement waits for others.
	tellDelay = 2 * time.Millisecond
	// tellMost is the number that does not wait.
	tellMost = 64
)

// held is a message that the broker has delivered: the token of its verdict.
type held struct {
	stream   *stream
	tag      uint64
	msg      pubsub.Message // until it is delivered
	state    heldState
	at       time.Duration // when it arrived
	deadline time.Duration // of the lease
}

type heldState uint8

const (
	arrived   heldState = iota
	delivered           // to the owner
	acked               // and not yet told to the broker
	told
	back // given back
)

// stream is one channel that consumes a queue, from its opening to its end. All but stale is guarded by the receiver's
// mutex.
type stream struct {
	src   *source
	ch    *amqp.Channel
	sess  *session
	lane  int
	epoch uint64
	stale func() bool
	dead  atomic.Bool // nothing of it counts any more: the broker delivers it again

	ring    []*held // what is not settled, by tag; nil where the tag has not come yet
	head    int
	base    uint64  // tag of ring[head]
	acking  []*held // acknowledged, and the broker not told
	waiting int     // acknowledgements since the broker was told of any
	open    int     // messages that are not settled

	yielding   bool // the lane is being given up: the broker is told of no acknowledgements
	yieldUntil time.Duration

	prefetch    int
	unconfirmed int // acknowledgements since the last round trip
	confirmed   time.Duration
}

func newStream(src *source, sess *session, ch *amqp.Channel, epoch uint64) *stream {
	st := &stream{src: src, ch: ch, sess: sess, lane: src.lane, epoch: epoch, base: 1}
	st.stale = st.isStale
	return st
}

func (st *stream) isDead() bool { return st.dead.Load() }

// isStale reports whether the broker may have given the lane to another member: it does when it has heard nothing of
// this process for two heartbeats, as when the process was stopped.
func (st *stream) isStale() bool {
	limit := st.sess.heartbeat * 3 / 2
	return st.isDead() || limit > 0 && st.sess.net.silence() > limit
}

// note keeps a message until it is settled.
func (st *stream) note(h *held) {
	i := st.head + int(h.tag-st.base)
	if i >= cap(st.ring) && st.head > 0 {
		n := copy(st.ring, st.ring[st.head:])
		clear(st.ring[n:])
		st.ring = st.ring[:n]
		i -= st.head
		st.head = 0
	}
	for len(st.ring) <= i {
		st.ring = append(st.ring, nil)
	}
	st.ring[i] = h
	st.open++
}

// used reports whether a message has come.
func (st *stream) used() bool { return st.base > 1 || len(st.ring) > 0 }

// acked notes an acknowledgement.
func (st *stream) acked(h *held) {
	h.state = acked
	st.unconfirmed++
	st.open--
	st.acking = append(st.acking, h)
	if st.yielding {
		st.handOver()
		return
	}
	st.src.r.tellSoon()
	if st.waiting++; st.waiting >= st.enough() {
		st.tellFirst()
	}
}

// enough is the number of acknowledgements that do not wait for others: a part of what the broker sends unasked, so that it
// has more to send in the meantime.
func (st *stream) enough() int { return max(min(tellMost, st.prefetch/4), 1) }

// tell tells the broker of all acknowledgements.
func (st *stream) tell() {
	if len(st.acking) == 0 || st.yielding {
		return
	}
	st.tellFirst()
	for _, h := range st.acking {
		h.state = told
		_ = st.ch.Ack(h.tag, false) // after a failure the channel is lost, and they come again
	}
	st.src.r.untold -= len(st.acking)
	clear(st.acking)
	st.acking = st.acking[:0]
}

// tellFirst tells the broker, with one message, of the acknowledgements that have nothing open before them.
func (st *stream) tellFirst() {
	st.waiting = 0
	last := uint64(0)
	for st.head < len(st.ring) && st.ring[st.head] != nil && st.ring[st.head].state >= acked {
		if h := st.ring[st.head]; h.state == acked {
			h.state = told
			last = h.tag
		}
		st.ring[st.head] = nil
		st.head++
		st.base++
	}
	if st.head == len(st.ring) {
		st.ring, st.head = st.ring[:0], 0
	}
	if last == 0 {
		return
	}
	_ = st.ch.Ack(last, true)
	kept := st.acking[:0]
	for _, h := range st.acking {
		if h.state == acked {
			kept = append(kept, h)
		}
	}
	st.src.r.untold -= len(st.acking) - len(kept)
	clear(st.acking[len(kept):])
	st.acking = kept
}

// requeue gives back one message.
func (st *stream) requeue(h *held) {
	h.state, h.msg = back, pubsub.Message{}
	st.open--
	_ = st.ch.Nack(h.tag, false, true)
}

// expired gives back what has lost its lease, and returns how much that is.
func (st *stream) expired(now time.Duration) (n int) {
	for _, h := range st.ring[st.head:] {
		if h == nil || h.state != delivered || h.deadline > now {
			continue
		}
		n++
		st.src.r.giveBack(h)
		if st.isDead() {
			break
		}
	}
	return n
}

// queue is a first-in-first-out of messages on a slice that is used again.
type queue struct {
	items []*held
	head  int
}

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) push(h *held) {
	if len(q.items) == cap(q.items) && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, h)
}

func (q *queue) pop() *held {
	if q.head == len(q.items) {
		return nil
	}
	h := q.items[q.head]
	q.items[q.head] = nil
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return h
}

func (q *queue) first() *held {
	if q.len() == 0 {
		return nil
	}
	return q.items[q.head]
}

// drop takes out what passes.
func (q *queue) drop(pass func(*held) bool) {
	kept := q.items[:0]
	for _, h := range q.items[q.head:] {
		if !pass(h) {
			kept = append(kept, h)
		}
	}
	clear(q.items[len(kept):])
	q.items, q.head = kept, 0
}
