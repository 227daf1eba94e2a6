package breaker

import "sync"

// quota bounds how many breakers of a Set are not closed at once. The nil quota has no bound.
type quota struct {
	mu      sync.Mutex // held for a few instructions, under a breaker's or the Set's own
	ratio   float64
	keys    int
	taken   int
	refused int64
}

// take counts one more that is not closed. Unless forced, it refuses what would be beyond the ratio; one is always allowed.
func (q *quota) take(forced bool) bool {
	if q == nil {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !forced && q.ratio > 0 && q.taken > 0 && float64(q.taken+1) > q.ratio*float64(q.keys) {
		q.refused++
		return false
	}
	q.taken++
	return true
}

// giveBack counts one less.
func (q *quota) giveBack() {
	if q == nil {
		return
	}
	q.mu.Lock()
	q.taken--
	q.mu.Unlock()
}

// resize tells how many keys there are, and which share of them may be open.
func (q *quota) resize(keys int, ratio float64) {
	q.mu.Lock()
	q.keys, q.ratio = keys, ratio
	q.mu.Unlock()
}

// join puts a breaker that nobody knows yet under q.
func (b *Breaker) join(q *quota) {
	b.quota = q
	if b.state.Load().kind != Closed {
		q.take(true)
	}
}

// leave takes a breaker out of its quota. It goes on working for those who still hold it.
func (b *Breaker) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.Load().kind != Closed {
		b.quota.giveBack()
	}
	b.quota = nil
}
