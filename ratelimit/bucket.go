package ratelimit

import (
	"math"
	"sync/atomic"
	"time"
)

// ticks is the unit of time in which a bucket reckons, in parts of a nanosecond: fine enough for limits on bytes, and good for
// 18 years since the limiter's base.
const ticks = 16

// toDuration rounds up, so that nobody comes too early, and is at most two years: beyond, a float may not fit.
func toDuration(t float64) time.Duration {
	return time.Duration(math.Ceil(min(t/ticks, float64(2*year))))
}

// bucket is the state of the algorithm under one Config. All times are ticks since the limiter's base.
type bucket struct {
	cfg       Config
	interval  int64 // of one call; 0 when the rate is off
	burst     int64
	depth     int64 // interval × burst
	rejection atomic.Pointer[Error]

	// tat is the theoretical arrival time: the moment at which the bucket will be full again. A call of weight n passes if it
	// leaves tat at most depth ahead of now.
	tat atomic.Int64
}

// sealed is the tat of a bucket that was replaced: nobody can take from it any more.
const sealed = math.MaxInt64

func newBucket(l *Limiter, cfg Config) *bucket {
	b := &bucket{cfg: cfg.withDefaults()}
	b.burst = int64(b.cfg.Burst)
	if b.cfg.Rate > 0 {
		b.interval = int64(math.Ceil(ticks * float64(time.Second) / b.cfg.Rate))
	}
	b.depth = b.interval * b.burst
	b.rejection.Store(&Error{limiter: l, cfg: b.cfg, weight: 1})
	return b
}

// fits reports whether a call of weight n can pass at all.
func (b *bucket) fits(n int64) bool { return n >= 1 && (n <= b.burst || b.interval == 0) }

// take lets a call of weight n through if there is room.
func (b *bucket) take(n, now int64) bool {
	cost := n * b.interval
	for {
		old := b.tat.Load()
		tat := max(old, now)
		if tat-now > b.depth-cost {
			return false
		}
		if b.tat.CompareAndSwap(old, tat+cost) {
			return true
		}
	}
}

// admit lets w through if its turn has come, as of the moment when it came: the time that it takes to wake a caller must not
// slow the rate. Otherwise it returns how long until then.
func (b *bucket) admit(w *waiter, now int64) (wait int64) {
	cost := min(w.weight, b.burst) * b.interval
	for {
		old := b.tat.Load()
		tat := max(old, w.since) + cost
		if due := tat - b.depth; due > now {
			return due - now
		}
		if b.tat.CompareAndSwap(old, tat) {
			w.from, w.cost, w.tat = b, cost, tat
			return 0
		}
	}
}

// delay is how long until a call of weight n can pass, when calls of weight ahead pass before it. It is a float because the
// sum may be longer than time.
func (b *bucket) delay(ahead, n, now int64) float64 {
	level := float64(max(b.tat.Load()-now, 0))
	return max(0, level+float64(ahead+n-b.burst)*float64(b.interval))
}

// room is the weight that could pass now.
func (b *bucket) room(now int64) int64 {
	if b.interval == 0 {
		return b.burst
	}
	return (b.depth - max(b.tat.Load()-now, 0)) / b.interval
}

// inherit takes over what old had left, and seals it.
func (b *bucket) inherit(old *bucket, now int64) {
	tat := old.tat.Swap(sealed)
	switch {
	case b.interval == old.interval && b.burst == old.burst:
		b.tat.Store(tat)
	case b.interval == 0 || old.interval == 0:
		b.tat.Store(now)
	default:
		left := float64(old.depth-max(tat-now, 0)) / float64(old.interval)
		taken := float64(b.burst) - min(left, float64(b.burst))
		b.tat.Store(now + int64(math.Ceil(taken*float64(b.interval))))
	}
}
