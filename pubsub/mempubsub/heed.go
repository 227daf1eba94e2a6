package mempubsub

import (
	"context"
	"sync"
)

// heed calls a function at the end of a context. A goroutine that waits for it and for something else can then wait for
// one channel, from which it wakes sooner than from a select. It stays with the same context for as long as it is
// given no other, since most callers have one for all calls.
type heed struct {
	done  <-chan struct{} // of the context; only for the goroutine that calls to
	mu    sync.Mutex
	stop  func() bool
	ended bool
}

// to heeds ctx instead of the context before. One that has ended already and is given again has called its function.
func (h *heed) to(ctx context.Context, wake func()) {
	done := ctx.Done()
	if done == h.done {
		return
	}
	h.done = done
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stop != nil {
		h.stop()
	}
	if !h.ended {
		h.stop = context.AfterFunc(ctx, wake)
	}
}

// end heeds nothing any more. It is safe beside to.
func (h *heed) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	if h.stop != nil {
		h.stop()
	}
}
