package cache

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/backstay-go/backstay/internal/failure"
)

// pendingWrite is a key's place in the queue. It is there while its write is dirty or a caller uses it. A dirty one is in
// exactly one place: among the fresh, in a group of retries, in flight, or refused.
type pendingWrite[K comparable, V any] struct {
	write  Write[K, V] // the newest accepted; Seq is zero before the first
	dirty  bool        // the source has not got write
	flying bool        // a write of the key is being written
	users  int         // calls of Set and Delete that are under way

	first   uint64        // Seq of the oldest accepted write that the source has not got
	since   time.Duration // when that was accepted
	next    uint64        // the same of the oldest one accepted during the flight, or zero
	nextAt  time.Duration
	tries   int         // failed attempts alone in a batch
	refused error       // why the source will not have write, or nil
	waits   []flushMark // the flushes that wait for this key

	shown   uint64 // Seq of the write that the cache has been told of
	showErr error
	showing bool
	idle    chan struct{} // closed when showing ends; nil while nobody waits for that
}

// flushMark is a flush that waits for the write of a Seq.
type flushMark struct {
	flush *flush
	seq   uint64
}

// flush counts what a call of Flush waits for.
type flush struct {
	left     int
	refusals int
	refused  error         // the last refusal
	done     chan struct{} // closed when left is zero
}

func (f *flush) end(refused error) {
	if refused != nil {
		f.refusals++
		f.refused = refused
	}
	if f.left--; f.left == 0 {
		close(f.done)
	}
}

// writeQueue holds the writes that the source has not got and decides which go next. Fresh writes, which have never
// failed, wait for MaxDelay only. A batch that fails is tried again in halves, until what fails is alone with its
// growing delay. The resume instant keeps these retries from hammering a source that is down: it moves on with each
// failure that tells something new, and a success clears it. The lock of the WriteBehind guards it all.
type writeQueue[K comparable, V any] struct {
	cfg   WriteBehindConfig
	base  time.Time
	wake  chan struct{} // tells the writing goroutine to look again
	slots *semaphore.Weighted

	table   map[K]*pendingWrite[K, V]
	fresh   []*pendingWrite[K, V] // oldest first
	retries retryHeap[K, V]
	dirty   int
	seq     uint64 // the last one given out

	urgent uint64        // a flush waits for the fresh writes up to this Seq
	held   time.Duration // the source has asked for no call before
	resume time.Duration // no retry before
	failed int           // failures since the last success
	turn   bool          // it is the retries' turn

	lastErr error // of the last failed call

	written, coalesced, retried, rejected uint64
}

func newWriteQueue[K comparable, V any](cfg WriteBehindConfig, inherited int) *writeQueue[K, V] {
	return &writeQueue[K, V]{
		cfg: cfg, base: time.Now(), wake: make(chan struct{}, 1), table: make(map[K]*pendingWrite[K, V]),
		slots: semaphore.NewWeighted(int64(max(cfg.MaxPending, inherited))),
	}
}

func (q *writeQueue[K, V]) now() time.Duration { return time.Since(q.base) }

func (q *writeQueue[K, V]) signal() {
	select {
	case q.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// enter returns the place of key, in use until leave, or nil when the key needs a slot and none is free.
func (q *writeQueue[K, V]) enter(key K) *pendingWrite[K, V] {
	p, ok := q.table[key]
	if !ok {
		if !q.slots.TryAcquire(1) {
			return nil
		}
		p = q.settleIn(key)
	}
	p.users++
	return p
}

// enterWith is enter for a caller that has a slot.
func (q *writeQueue[K, V]) enterWith(key K) *pendingWrite[K, V] {
	p, ok := q.table[key]
	if ok {
		q.slots.Release(1)
	} else {
		p = q.settleIn(key)
	}
	p.users++
	return p
}

func (q *writeQueue[K, V]) settleIn(key K) *pendingWrite[K, V] {
	p := &pendingWrite[K, V]{}
	q.table[key] = p
	return p
}

// leave ends the use of p.
func (q *writeQueue[K, V]) leave(p *pendingWrite[K, V], key K) {
	p.users--
	q.vacate(p, key)
}

// vacate gives up a place that nothing needs any more.
func (q *writeQueue[K, V]) vacate(p *pendingWrite[K, V], key K) {
	if !p.dirty && p.users == 0 {
		delete(q.table, key)
		q.slots.Release(1)
	}
}

// accept makes w the write of its place. Writes are accepted in the order of Seq.
func (q *writeQueue[K, V]) accept(p *pendingWrite[K, V], w Write[K, V]) {
	p.write = w
	switch {
	case !p.dirty:
		p.dirty = true
		p.first, p.since = w.Seq, q.now()
		q.dirty++
		q.pushFresh(p)
		return
	case p.refused != nil: // the new write deserves an attempt of its own
		p.refused, p.tries = nil, 0
		q.pushFresh(p)
	case p.flying && p.next == 0: // whether it replaces the older one is for the flight to tell
		p.next, p.nextAt = w.Seq, q.now()
		return
	}
	q.coalesced++
}

// pushFresh keeps the fresh writes in order of age: a write accepted during its key's flight comes late.
func (q *writeQueue[K, V]) pushFresh(p *pendingWrite[K, V]) {
	i := sort.Search(len(q.fresh), func(i int) bool { return q.fresh[i].since > p.since })
	q.fresh = slices.Insert(q.fresh, i, p)
	if i == 0 || len(q.fresh) == q.cfg.MaxBatch {
		q.signal()
	}
}

// next takes the batch to be written now, or tells how long to wait for one; negative means until woken.
func (q *writeQueue[K, V]) next() (batch []*pendingWrite[K, V], wait time.Duration) {
	now := q.now()
	if now < q.held {
		return nil, q.held - now
	}
	freshIn, retryIn := q.freshDue()-now, q.retryDue()-now
	switch {
	case retryIn <= 0 && (q.turn || freshIn > 0):
		q.turn = false
		q.retried++
		return q.take(heap.Pop(&q.retries).(retryGroup[K, V]).members), 0
	case freshIn <= 0:
		q.turn = true
		n := min(len(q.fresh), q.cfg.MaxBatch)
		batch = slices.Clone(q.fresh[:n])
		clear(q.fresh[:n])
		q.fresh = q.fresh[n:]
		return q.take(batch), 0
	}
	if wait = min(freshIn, retryIn); wait >= never-now {
		return nil, -1
	}
	return nil, wait
}

func (q *writeQueue[K, V]) freshDue() time.Duration {
	switch {
	case len(q.fresh) == 0:
		return never
	case len(q.fresh) >= q.cfg.MaxBatch, q.fresh[0].first <= q.urgent:
		return 0
	default:
		return q.fresh[0].since + max(q.cfg.MaxDelay, 0)
	}
}

func (q *writeQueue[K, V]) retryDue() time.Duration {
	if len(q.retries) == 0 {
		return never
	}
	return max(q.retries[0].due, q.resume)
}

func (q *writeQueue[K, V]) take(batch []*pendingWrite[K, V]) []*pendingWrite[K, V] {
	for _, p := range batch {
		p.flying = true
	}
	return batch
}

// succeed settles a batch that the source has got as writes says.
func (q *writeQueue[K, V]) succeed(batch []*pendingWrite[K, V], writes []Write[K, V]) {
	q.failed, q.resume = 0, 0
	q.written += uint64(len(writes))
	for i, p := range batch {
		p.flying, p.tries = false, 0
		p.unmark(writes[i].Seq, nil)
		if p.write.Seq == writes[i].Seq {
			q.clean(p)
		} else {
			q.renew(p)
		}
	}
}

// clean notes that the source has got the write of p, or will never get it.
func (q *writeQueue[K, V]) clean(p *pendingWrite[K, V]) {
	p.dirty, p.refused = false, nil
	q.dirty--
	q.vacate(p, p.write.Key)
}

// renew makes p fresh again with what was accepted during the flight.
func (q *writeQueue[K, V]) renew(p *pendingWrite[K, V]) {
	p.first, p.since, p.next = p.next, p.nextAt, 0
	q.pushFresh(p)
}

// fail settles a batch that the source may not have got.
func (q *writeQueue[K, V]) fail(batch []*pendingWrite[K, V], writes []Write[K, V], err error) {
	now := q.now()
	q.lastErr = err
	for _, p := range batch {
		p.flying = false
	}
	rejected, permanent, alone := failure.Rejected(err), failure.Permanent(err), len(batch) == 1
	if after := failure.RetryAfter(err); after > 0 && !permanent {
		q.held = now + after
	}
	switch {
	case rejected: // says nothing about the writes
		q.pause(now)
		q.retry(batch, now)
	case permanent && alone:
		q.refuse(batch[0], writes[0].Seq, err)
	case permanent: // the source is well, so there is nothing to wait for
		q.halve(batch, now)
	case alone:
		q.failAlone(batch[0], now)
	default:
		q.pause(now)
		q.halve(batch, now)
	}
}

// failAlone lets a write wait by its own count of failures. Only the first of them tells something about the source.
func (q *writeQueue[K, V]) failAlone(p *pendingWrite[K, V], now time.Duration) {
	if p.tries == 0 {
		q.pause(now)
	} else {
		q.resume = max(q.resume, now+q.cfg.RetryMin)
	}
	p.tries++
	q.retry([]*pendingWrite[K, V]{p}, now+q.backOff(p.tries))
}

// refuse parks the write of seq, which cannot succeed, unless a newer one has replaced it meanwhile.
func (q *writeQueue[K, V]) refuse(p *pendingWrite[K, V], seq uint64, err error) {
	p.tries = 0
	if p.write.Seq != seq {
		q.coalesced++
		q.renew(p)
		return
	}
	p.refused = err
	p.unmark(seq, err)
}

// pause keeps retries away from a source that may be down.
func (q *writeQueue[K, V]) pause(now time.Duration) {
	q.failed++
	q.resume = now + q.backOff(q.failed)
}

// halve tries the batch again in two. Chance decides which half comes first, so that no place in a batch makes every
// search long.
func (q *writeQueue[K, V]) halve(batch []*pendingWrite[K, V], now time.Duration) {
	a, b := batch[:len(batch)/2], batch[len(batch)/2:]
	if rand.N(2) == 0 {
		a, b = b, a
	}
	q.retry(a, now)
	q.retry(b, now)
}

// retry lets the members go together once more. What was accepted during the flight goes with them.
func (q *writeQueue[K, V]) retry(members []*pendingWrite[K, V], due time.Duration) {
	for _, p := range members {
		if p.next != 0 {
			p.next = 0
			q.coalesced++
		}
	}
	heap.Push(&q.retries, retryGroup[K, V]{members: members, due: due})
}

// backOff is the delay after the n-th failure.
func (q *writeQueue[K, V]) backOff(n int) time.Duration {
	d := q.cfg.RetryMax
	if n <= 32 && q.cfg.RetryMin<<(n-1)>>(n-1) == q.cfg.RetryMin {
		d = min(d, q.cfg.RetryMin<<(n-1))
	}
	return d - rand.N(d/2+1)
}

// refusals is how many pending writes are refused.
func (q *writeQueue[K, V]) refusals() (n int) {
	for _, p := range q.table {
		if p.refused != nil {
			n++
		}
	}
	return n
}

// flush marks what is pending and makes it due, refused writes included. It returns nil when nothing is pending.
func (q *writeQueue[K, V]) flush() *flush {
	if q.dirty == 0 {
		return nil
	}
	f := &flush{left: q.dirty, done: make(chan struct{})}
	for i := range q.retries {
		q.retries[i].due = 0
	}
	for _, p := range q.table {
		if !p.dirty {
			continue
		}
		p.waits = append(p.waits, flushMark{f, p.write.Seq})
		if p.refused != nil {
			p.refused = nil
			q.retry([]*pendingWrite[K, V]{p}, 0)
		}
	}
	q.urgent, q.resume = q.seq, 0
	q.signal()
	return f
}

// forget takes f off the keys that it still waits for.
func (q *writeQueue[K, V]) forget(f *flush) {
	if f.left == 0 {
		return
	}
	for _, p := range q.table {
		p.waits = slices.DeleteFunc(p.waits, func(m flushMark) bool { return m.flush == f })
	}
}

// unmark ends the waits for writes up to seq.
func (p *pendingWrite[K, V]) unmark(seq uint64, refused error) {
	p.waits = slices.DeleteFunc(p.waits, func(m flushMark) bool {
		if m.seq > seq {
			return false
		}
		m.flush.end(refused)
		return true
	})
}

// retryGroup is a batch that may not go before it is due.
type retryGroup[K comparable, V any] struct {
	members []*pendingWrite[K, V]
	due     time.Duration
}

// retryHeap has the group that is due first at its root.
type retryHeap[K comparable, V any] []retryGroup[K, V]

func (h retryHeap[K, V]) Len() int           { return len(h) }
func (h retryHeap[K, V]) Less(i, j int) bool { return h[i].due < h[j].due }
func (h retryHeap[K, V]) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is for container/heap.
func (h *retryHeap[K, V]) Push(x any) { *h = append(*h, x.(retryGroup[K, V])) }

// Pop is for container/heap.
func (h *retryHeap[K, V]) Pop() any {
	last := len(*h) - 1
	g := (*h)[last]
	(*h)[last] = retryGroup[K, V]{}
	*h = (*h)[:last]
	return g
}
