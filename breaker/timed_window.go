package breaker

import (
	"sync"
	"sync/atomic"
	"time"
)

// A timedWindow is divided into this many parts; it forgets one part at a time.
const (
	windowParts = 10
	bucketMask  = 15 // the ring has 16 buckets, so that the index of one is a mask
)

// timedWindow holds the outcomes of the calls that ended within the latest windowParts ticks. Recording is wait-free, but for
// the first call of each tick, which empties the bucket it takes over.
type timedWindow struct {
	tick    time.Duration // how long one bucket takes
	buckets [bucketMask + 1]bucket

	mu   sync.Mutex   // held to turn to another bucket
	gone atomic.Int64 // calls in buckets that were taken over
}

// bucket counts the calls that ended in one tick. A call whose goroutine was held up for a whole round of the ring counts
// in the tick that took its bucket over, which is the one it comes back in.
type bucket struct {
	tick     atomic.Int64
	before   atomic.Int64 // calls in the window when the bucket was taken
	calls    atomic.Int64
	failures atomic.Int64
	slow     atomic.Int64
	_        [24]byte // one cache line each
}

func newTimedWindow(length time.Duration) *timedWindow {
	return &timedWindow{tick: max(1, length/windowParts)}
}

// record stores one outcome. It returns how many calls the window holds, and whether a bucket was taken over for it.
func (w *timedWindow) record(now time.Duration, failed, slow bool) (calls uint64, turned bool) {
	tick := int64(now / w.tick)
	b := &w.buckets[tick&bucketMask]
	if b.tick.Load() < tick {
		w.turn(b, tick)
		turned = true
	}
	n := b.calls.Add(1) // before the others, which are read the other way round: no failure is seen without its call
	if failed {
		b.failures.Add(1)
	}
	if slow {
		b.slow.Add(1)
	}
	return uint64(n + b.before.Load()), turned
}

// turn empties b for the given tick, unless somebody else has.
func (w *timedWindow) turn(b *bucket, tick int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b.tick.Load() >= tick {
		return
	}
	b.failures.Store(0)
	b.slow.Store(0)
	w.gone.Add(b.calls.Swap(0))
	b.before.Store(w.sum(tick).calls)
	b.tick.Store(tick)
}

func (w *timedWindow) tally(now time.Duration) tally { return w.sum(int64(now / w.tick)) }

// sum is what the buckets up to the given tick hold.
func (w *timedWindow) sum(tick int64) (t tally) {
	for i := range w.buckets {
		b := &w.buckets[i]
		if tick-b.tick.Load() < windowParts {
			t.slow += b.slow.Load()
			t.failures += b.failures.Load()
			t.calls += b.calls.Load()
		}
	}
	return t
}

func (w *timedWindow) total() int64 {
	n := w.gone.Load()
	for i := range w.buckets {
		n += w.buckets[i].calls.Load()
	}
	return n
}
