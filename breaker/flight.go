package breaker

import (
	"sync/atomic"
	"time"
)

// A call under way is known to be slow at most one part of SlowCall late.
const flightParts = 16

// flight counts the calls under way by the tick they began in, without knowing any of them: enough to tell how many have been
// under way for longer than the limit. It is lock-free, and every call is counted in one place: the slot of its tick or,
// once that was taken over by a later tick, old.
type flight struct {
	tick  time.Duration
	slots [2 * flightParts]atomic.Uint64 // a tick, and in the low bits its calls under way
	old   atomic.Int64
	seen  atomic.Int64 // the latest tick in which somebody looked for slow calls
	late  atomic.Int64 // how many there were then
}

func newFlight(limit time.Duration) *flight {
	return &flight{tick: max(1, limit/flightParts)}
}

func (f *flight) slot(now time.Duration) (slot *atomic.Uint64, tick int64) {
	tick = int64(now / f.tick)
	return &f.slots[tick%int64(len(f.slots))], tick
}

// The low bits of a slot count up to 16 million calls; the others are good for a year of ticks of the shortest SlowCall.
const callBits = 24

func slotTick(v uint64) int64  { return int64(v >> callBits) }
func slotCalls(v uint64) int64 { return int64(v & (1<<callBits - 1)) }

// begin counts a call that begins now.
func (f *flight) begin(now time.Duration) {
	slot, tick := f.slot(now)
	for {
		v := slot.Load()
		switch age := tick - slotTick(v); {
		case age == 0:
			if slot.CompareAndSwap(v, v+1) {
				return
			}
		case age < 0: // this goroutine was held up for a whole round
			f.old.Add(1)
			return
		case slot.CompareAndSwap(v, uint64(tick)<<callBits|1):
			if n := slotCalls(v); n > 0 {
				f.old.Add(n)
			}
			return
		}
	}
}

// end takes away a call that began at start.
func (f *flight) end(start time.Duration) {
	slot, tick := f.slot(start)
	for {
		v := slot.Load()
		if slotTick(v) != tick {
			f.old.Add(-1)
			return
		}
		if slot.CompareAndSwap(v, v-1) {
			return
		}
	}
}

// overdue is how many calls have been under way for longer than the limit. It may miss one that is moved to old at this
// moment, but counts none twice.
func (f *flight) overdue(now time.Duration) int64 {
	n := f.old.Load()
	_, tick := f.slot(now)
	for i := range f.slots {
		v := f.slots[i].Load()
		if age := tick - slotTick(v); age > flightParts {
			n += slotCalls(v)
		}
	}
	return max(0, n)
}

// look reports whether slow calls under way may be a reason to open: their number is new once in each tick, and can only fall
// until the next.
func (f *flight) look(now time.Duration) bool {
	tick := int64(now / f.tick)
	if seen := f.seen.Load(); tick > seen && f.seen.CompareAndSwap(seen, tick) {
		f.late.Store(f.overdue(now))
	}
	return f.late.Load() > 0 && f.overdue(now) > 0
}
