package breaker

import "sync/atomic"

// window holds the outcomes of the latest calls in a ring. Recording is wait-free: a ticket, a swap, and a correction of
// the failure count by what the swap displaced, so that the count is always the sum of the slots once writers are done.
type window struct {
	slots    []atomic.Bool // true where the call failed
	next     atomic.Uint64 // tickets given out: calls recorded so far
	failures atomic.Int64
}

func newWindow(size int) *window { return &window{slots: make([]atomic.Bool, size)} }

// record stores one outcome and returns how many were recorded so far.
func (w *window) record(failed bool) uint64 {
	n := w.next.Add(1)
	if was := w.slots[(n-1)%uint64(len(w.slots))].Swap(failed); was != failed {
		if failed {
			w.failures.Add(1)
		} else {
			w.failures.Add(-1)
		}
	}
	return n
}

// counts returns the calls and failures that the window holds.
func (w *window) counts() (calls, failures int) {
	return int(min(w.next.Load(), uint64(len(w.slots)))), int(w.failures.Load())
}
