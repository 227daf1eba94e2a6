package breaker

import (
	"sync/atomic"
	"time"
)

// window holds what a closed breaker judges. Its identity is the generation of the permits that were given out under it.
type window struct {
	ring   ring         // the latest calls, unless timed
	timed  *timedWindow // the calls of the latest time
	flight *flight      // the calls under way, when slow ones are judged
	streak atomic.Int64 // consecutive failures
}

func newWindow(cfg Config) *window {
	w := new(window)
	if cfg.WindowTime > 0 {
		w.timed = newTimedWindow(cfg.WindowTime)
	} else {
		w.ring.slots = make([]atomic.Uint32, cfg.Window)
	}
	if cfg.SlowCall > 0 {
		w.flight = newFlight(cfg.SlowCall)
	}
	return w
}

// tally is what a window holds.
type tally struct{ calls, failures, slow int64 }

// record stores one result. It reports whether the ratios are to be judged now, for one more success lowers them: they can
// only be reached by one when it completes the minimum of calls, or when earlier successes have left the window.
func (w *window) record(now time.Duration, failed, slow bool, minimum int) (judge bool) {
	var calls uint64
	if w.timed != nil {
		calls, judge = w.timed.record(now, failed, slow)
	} else {
		calls = w.ring.record(failed, slow)
	}
	return judge || failed || slow || calls == uint64(minimum)
}

func (w *window) tally(now time.Duration) tally {
	if w.timed != nil {
		return w.timed.tally(now)
	}
	return w.ring.tally()
}

// total is how many calls were recorded since the window is.
func (w *window) total() int64 {
	if w.timed != nil {
		return w.timed.total()
	}
	return int64(w.ring.next.Load())
}

// ring holds the outcomes of the latest calls. Recording is wait-free: a ticket, a swap where the slot changes, and a
// correction of the counts by what the swap displaced, so that they are always the sums over the slots once writers
// are done.
type ring struct {
	slots    []atomic.Uint32
	next     atomic.Uint64 // tickets given out: calls recorded so far
	failures atomic.Int64
	slow     atomic.Int64
}

// What a slot tells of its call.
const (
	slotFailed = 1 << iota
	slotSlow
)

// record stores one outcome and returns how many were recorded so far.
func (r *ring) record(failed, slow bool) uint64 {
	var mark uint32
	if failed {
		mark |= slotFailed
	}
	if slow {
		mark |= slotSlow
	}
	n := r.next.Add(1)
	slot := &r.slots[(n-1)%uint64(len(r.slots))]
	if slot.Load() != mark { // seldom: most calls succeed, and so did those before them
		was := slot.Swap(mark)
		correct(&r.failures, was, mark, slotFailed)
		correct(&r.slow, was, mark, slotSlow)
	}
	return n
}

// correct adjusts a count for a slot that has turned from was to is.
func correct(count *atomic.Int64, was, is, bit uint32) {
	if delta := int64(is&bit) - int64(was&bit); delta > 0 {
		count.Add(1)
	} else if delta < 0 {
		count.Add(-1)
	}
}

func (r *ring) tally() tally {
	return tally{
		calls:    int64(min(r.next.Load(), uint64(len(r.slots)))),
		failures: r.failures.Load(),
		slow:     r.slow.Load(),
	}
}
