package bulkhead

import (
	"context"
	"time"
)

// waiter is a caller in the queue, and the ring of its neighbours.
type waiter struct {
	next, prev *waiter
	weight     uint64
	turn       chan struct{} // closed when the permit is handed over
}

func (w *waiter) insertBefore(next *waiter) {
	w.next, w.prev = next, next.prev
	w.prev.next, next.prev = w, w
}

func (w *waiter) remove() { w.prev.next, w.next.prev = w.next, w.prev }

func (b *Bulkhead) wait(ctx context.Context, weight uint64) (Permit, error) {
	l := b.limits.Load()
	// A queue that is full is seen before anything is allocated, and what is allocated is so before the lock is taken.
	if waiting(b.counts.Load()) >= l.maxQueue {
		return Permit{}, b.reject(l, int(weight))
	}
	w := &waiter{weight: weight, turn: make(chan struct{})}
	switch b.enqueue(l, w) {
	case admitted:
		return Permit{b: b, weight: weight}, nil
	case full:
		return Permit{}, b.reject(l, int(weight))
	}
	var timeout <-chan time.Time
	if l.cfg.QueueTimeout > 0 {
		timer := time.NewTimer(l.cfg.QueueTimeout)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-w.turn:
		if err := ctx.Err(); err != nil { // both at once: the permit goes to the next caller
			b.release(weight)
			return Permit{}, b.leftBy(l, int(weight), err)
		}
		b.admitted.Add(1)
		return Permit{b: b, weight: weight}, nil
	case <-ctx.Done():
		b.leave(w)
		return Permit{}, b.leftBy(l, int(weight), ctx.Err())
	case <-timeout:
		b.leave(w)
		return Permit{}, b.reject(l, int(weight))
	}
}

// place is what a caller that comes late gets.
type place int

const (
	inQueue place = iota
	admitted
	full
)

// enqueue joins the queue, unless there is a permit after all, or no room.
func (b *Bulkhead) enqueue(l *limits, w *waiter) place {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		c := b.counts.Load()
		switch {
		case c+w.weight <= l.maxConcurrent: // and nobody waits
			if b.counts.CompareAndSwap(c, c+w.weight) {
				return admitted
			}
		case waiting(c) >= l.maxQueue:
			return full
		default:
			if b.counts.CompareAndSwap(c, c+oneWaiting) {
				w.insertBefore(&b.queue)
				return inQueue
			}
		}
	}
}

// leftBy is the error of a caller whose context ended in the queue.
func (b *Bulkhead) leftBy(l *limits, n int, ended error) error {
	b.left.Add(1)
	return &Error{cfg: l.cfg, weight: n, ended: ended}
}

// leave gives up a place in the queue, or the permit if it was handed over in the meantime.
func (b *Bulkhead) leave(w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.turn:
		b.counts.Add(-w.weight)
	default:
		w.remove()
		b.counts.Add(^(oneWaiting - 1)) // one less
	}
	b.handOver()
}

// handOver gives free permits to those who wait longest. It is called with mu held: while somebody waits nobody else changes
// the counts.
func (b *Bulkhead) handOver() {
	limit := b.limits.Load().maxConcurrent
	for first := b.queue.next; first != &b.queue; first = b.queue.next {
		c := b.counts.Load()
		if running(c) > 0 && running(c)+first.weight > limit {
			return
		}
		b.counts.Store(c - oneWaiting + first.weight)
		first.remove()
		close(first.turn)
	}
}
