package bulkhead

import (
	"container/ring"
	"context"
	"time"
)

// waiter is a caller in the queue.
type waiter struct {
	place  ring.Ring // its Value is the waiter
	weight uint64
	turn   chan struct{} // closed when the permit is handed over
}

func (b *Bulkhead) wait(ctx context.Context, weight uint64) (Permit, error) {
	l := b.limits.Load()
	w, admitted := b.enqueue(l, weight)
	if admitted {
		return Permit{b: b, weight: weight}, nil
	}
	if w == nil {
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
			b.left.Add(1)
			return Permit{}, err
		}
		b.admitted.Add(1)
		return Permit{b: b, weight: weight}, nil
	case <-ctx.Done():
		b.leave(w)
		b.left.Add(1)
		return Permit{}, ctx.Err()
	case <-timeout:
		b.leave(w)
		return Permit{}, b.reject(l, int(weight))
	}
}

// enqueue joins the queue. There is no waiter when the call was admitted after all, or when the queue is full.
func (b *Bulkhead) enqueue(l *limits, weight uint64) (w *waiter, admitted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		c := b.counts.Load()
		switch {
		case c+weight <= l.maxConcurrent: // and nobody waits
			if b.counts.CompareAndSwap(c, c+weight) {
				return nil, true
			}
		case waiting(c) >= l.maxQueue:
			return nil, false
		default:
			if b.counts.CompareAndSwap(c, c+oneWaiting) {
				w = &waiter{weight: weight, turn: make(chan struct{})}
				w.place.Value = w
				b.queue.Prev().Link(&w.place)
				return w, false
			}
		}
	}
}

// leave gives up a place in the queue, or the permit if it was handed over in the meantime.
func (b *Bulkhead) leave(w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.turn:
		b.counts.Add(-w.weight)
	default:
		w.place.Prev().Unlink(1)
		b.counts.Add(^(oneWaiting - 1)) // one less
	}
	b.handOver()
}

// handOver gives free permits to those who wait longest. It is called with mu held.
func (b *Bulkhead) handOver() {
	limit := b.limits.Load().maxConcurrent
	for first := b.queue.Next(); first != &b.queue; first = b.queue.Next() {
		w, _ := first.Value.(*waiter)
		for {
			c := b.counts.Load()
			if running(c) > 0 && running(c)+w.weight > limit {
				return
			}
			if b.counts.CompareAndSwap(c, c-oneWaiting+w.weight) {
				break
			}
		}
		first.Prev().Unlink(1)
		close(w.turn)
	}
}
