package saga

import (
	"context"
	"slices"
	"sync"
	"time"
)

// hold is an instance under this session's lease. in belongs to the worker, but for Token, which is the committer's while
// a change is under way.
type hold struct {
	s      *session
	in     Instance
	def    definition
	base   time.Duration // the age of the instance when the lease began
	began  time.Time
	cached any // the decoded form of in.State, or nil
	change change
	tx     context.Context // the store's transaction that an attempt runs in, or nil

	history []Event // as far as it was made under this hold
	first   [4]Event

	mu      sync.Mutex
	renewed time.Time
	lost    chan struct{} // made when somebody waits for it
	cause   error         // why attempts have to end: ErrFenced once the lease cannot be relied on, or ErrCancelled
	gone    bool          // the lease was lost
	asked   bool          // Cancel was called
	closing bool          // what is under way ends the hold: it is too late to ask
	inTx    bool          // a transaction of the store's is under way
	live    []*attemptCtx
}

// newHold puts an instance to work whose lease began at the latest at began.
func (s *session) newHold(in Instance, began time.Time) *hold {
	h := &hold{s: s, in: in, def: s.r.defs[in.Ref], began: began, renewed: began}
	if !in.Created.IsZero() {
		h.base = in.Updated.Sub(in.Created)
	}
	h.change.h = h
	s.mu.Lock()
	s.held[h] = struct{}{}
	s.here[in.ID] = h
	s.watchFrom(began)
	s.mu.Unlock()
	s.r.stats.active.Add(1)
	return h
}

// note takes over a change that is in the store.
func (h *hold) note(c *change) {
	h.in.Progress = c.next
	if c.t.Event == nil || !h.whole() {
		return
	}
	if h.history == nil {
		h.history = h.first[:0]
	}
	h.history = append(h.history, c.event)
}

// whole reports whether all that ever happened to the instance happened under this hold.
func (h *hold) whole() bool { return h.in.Created.IsZero() && !h.isLost() }

// age is how long the instance exists by the store's clock, or a little more.
func (h *hold) age() time.Duration { return h.base + time.Since(h.began) }

// end is when an instance of that age limit is out of time, on this node's clock.
func (h *hold) end(limit time.Duration) time.Time { return h.began.Add(limit - h.base) }

// enlist has a context cancelled when the hold ends; it returns the cause if that has happened.
func (h *hold) enlist(c *attemptCtx) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cause == nil {
		h.live = append(h.live, c)
	}
	return h.cause
}

func (h *hold) discharge(c *attemptCtx) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.live, c); i >= 0 {
		h.live = slices.Delete(h.live, i, i+1)
	}
}

// ending is why attempts have to end, or nil.
func (h *hold) ending() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cause
}

// interrupt cancels the contexts of the attempts under way.
func (h *hold) interrupt(cause error) {
	h.mu.Lock()
	if h.cause == nil {
		h.cause = cause
	}
	live := h.live
	h.live = nil
	h.mu.Unlock()
	for _, c := range live {
		c.cancel(cause)
	}
}

// lose ends the attempt under way: from now on another node may have the instance.
func (h *hold) lose() {
	h.mu.Lock()
	if !h.gone && h.lost != nil {
		close(h.lost)
	}
	h.gone = true
	h.mu.Unlock()
	h.interrupt(ErrFenced)
}

func (h *hold) isLost() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.gone
}

// loss is closed when the lease is lost.
func (h *hold) loss() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost == nil {
		h.lost = make(chan struct{})
		if h.gone {
			close(h.lost)
		}
	}
	return h.lost
}

// ask cancels the instance where it is worked on, unless it is too late for that.
func (h *hold) ask() bool {
	h.mu.Lock()
	late := h.closing || h.gone
	h.asked = h.asked || !late
	h.mu.Unlock()
	if !late {
		h.interrupt(ErrCancelled)
	}
	return !late
}

func (h *hold) wasAsked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// heed lets attempts run again after a cancellation has had its effect.
func (h *hold) heed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = false
	if !h.gone {
		h.cause = nil
	}
}

// close makes it too late to ask; it reports false where somebody has asked already.
func (h *hold) close() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closing = !h.asked
	return h.closing
}

// renew notes that the lease was extended by a call that began at t.
func (h *hold) renew(t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.renewed = t
}

// setInTx keeps heartbeats away while a transaction of the store's changes the token.
func (h *hold) setInTx(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inTx = on
}

// stale reports whether it is time for a heartbeat.
func (h *hold) stale(after time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.gone && !h.inTx && time.Since(h.renewed) >= after
}

// expiry is when the lease can no longer be relied on.
func (h *hold) expiry() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.renewed.Add(h.s.lease)
}

// rest waits for d, or until the lease is lost.
func (h *hold) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-h.loss():
	case <-t.C:
	}
}
