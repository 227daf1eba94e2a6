package ratelimit

import (
	"container/list"
	"context"
	"time"
)

// waiter is a caller in the queue. It has taken nothing: the first in the queue takes when its turn comes.
type waiter struct {
	weight int64
	since  int64
	turn   chan struct{} // closed when it may pass
	place  *list.Element

	// What it took, for a caller that leaves in the moment when its turn comes.
	from *bucket
	cost int64
	tat  int64
}

func (l *Limiter) wait(ctx context.Context, n int) error {
	w, passed := l.enqueue(ctx, int64(n))
	switch {
	case passed:
		return nil
	case w == nil:
		return l.reject(n)
	}
	select {
	case <-w.turn:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		l.leave(w)
		l.left.Add(1)
		return &Error{limiter: l, cfg: l.Config(), weight: n, ended: err}
	}
	l.queued.Add(1)
	return nil
}

// enqueue joins the queue. There is no waiter when the call passed after all, or when its turn would come too late.
func (l *Limiter) enqueue(ctx context.Context, n int64) (w *waiter, passed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, now := l.bucket.Load(), l.now()
	if !b.fits(n) {
		return nil, false
	}
	if l.ahead.Load() == 0 && b.take(n, now) {
		return nil, true
	}
	if !inTime(ctx, b.cfg.MaxWait, toDuration(b.delay(l.ahead.Load(), n, now))) {
		return nil, false
	}
	w = &waiter{weight: n, since: now, turn: make(chan struct{})}
	w.place = l.queue.PushBack(w)
	l.ahead.Add(n)
	l.advance()
	return w, false
}

// inTime reports whether a turn after delay comes within maxWait and before ctx's deadline. Beyond a year it never does,
// which also keeps all sums far from overflow.
func inTime(ctx context.Context, maxWait time.Duration, delay time.Duration) bool {
	if maxWait < 0 {
		maxWait = year
	}
	if delay > min(maxWait, year) {
		return false
	}
	deadline, ok := ctx.Deadline()
	return !ok || delay < time.Until(deadline)
}

// advance lets everybody pass whose turn has come, and sets the timer for the next. It is called with mu held.
func (l *Limiter) advance() {
	b, now := l.bucket.Load(), l.now()
	for first := l.queue.Front(); first != nil; first = l.queue.Front() {
		w, _ := first.Value.(*waiter)
		if wait := b.admit(w, now); wait > 0 {
			l.wakeIn(toDuration(float64(wait)))
			return
		}
		l.remove(w)
		close(w.turn)
	}
	if l.timer != nil {
		l.timer.Stop()
	}
}

func (l *Limiter) wakeIn(d time.Duration) {
	if l.timer != nil {
		l.timer.Reset(d)
		return
	}
	l.timer = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.advance()
	})
}

func (l *Limiter) remove(w *waiter) {
	l.queue.Remove(w.place)
	l.ahead.Add(-w.weight)
}

// leave gives up a place in the queue. What w took if its turn came in the same moment goes back as well, unless others have
// passed since: then nothing tells whether it was already refilled, and giving it back could exceed the rate.
func (l *Limiter) leave(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.turn:
		w.from.tat.CompareAndSwap(w.tat, w.tat-w.cost)
	default:
		l.remove(w)
	}
	l.advance()
}

// delay is how long until a call of weight n would pass at once.
func (l *Limiter) delay(n int64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return toDuration(l.bucket.Load().delay(l.ahead.Load(), n, l.now()))
}
