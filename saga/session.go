package saga

import (
	"context"
	"sync"
	"time"
)

// session is one call of Run: its slots, its leases and its way to the store.
type session struct {
	r       *Runner
	lease   time.Duration
	base    context.Context // of every attempt: Run's values, but not its end
	kill    context.CancelCauseFunc
	commits chan *change
	idle    chan struct{} // closed when the last worker of a closed session is gone

	mu     sync.Mutex
	closed bool
	busy   int
	held   map[*hold]struct{}
	next   time.Time // the earliest known end of a pause, to look at once
}

// hold is an instance under this session's lease.
type hold struct {
	in     Instance // the worker's, but for Token, which is the committer's once work has begun
	def    definition
	ctx    context.Context
	cancel context.CancelCauseFunc
	lost   chan struct{} // closed when the lease can no longer be relied on
	once   sync.Once
	expiry *time.Timer

	mu      sync.Mutex
	renewed time.Time
}

func newSession(ctx context.Context, r *Runner) *session {
	s := &session{
		r: r, lease: r.Config().Lease, commits: make(chan *change), idle: make(chan struct{}), held: map[*hold]struct{}{},
	}
	s.base, s.kill = context.WithCancelCause(context.WithoutCancel(ctx))
	return s
}

// run claims until ctx is done, and drains.
func (s *session) run(ctx context.Context) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		s.commitLoop(stop)
	}()
	s.claimLoop(ctx)
	s.drain()
	close(stop)
	<-stopped
	s.kill(errDrained)
}

func (s *session) drain() {
	s.mu.Lock()
	s.closed = true
	if s.busy == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	if patience := s.r.Config().DrainTimeout; patience >= 0 {
		defer time.AfterFunc(patience, func() { s.kill(errDrained) }).Stop()
	}
	<-s.idle
}

func (s *session) draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// claimLoop looks into the store whenever there is a free slot and a reason, and else ever more rarely.
func (s *session) claimLoop(ctx context.Context) {
	pause := pollMin
	var surveyed time.Time
	for ctx.Err() == nil {
		found := s.claim(ctx)
		if now := time.Now(); now.Sub(surveyed) >= s.lease {
			s.survey(ctx)
			surveyed = now
		}
		if found {
			pause = pollMin
		}
		pause = min(pause, s.r.Config().PollMax)
		if s.r.nap(ctx, s.untilNext(pause)) {
			pause = pollMin
			continue
		}
		pause *= 2
	}
}

// claim takes as many due instances as there are free slots. It is not cut off by the end of ctx, which could leave
// instances claimed for nobody.
func (s *session) claim(ctx context.Context) (found bool) {
	slots := s.take(s.r.Config().Concurrency)
	if slots == 0 {
		return false
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.lease)
	defer cancel()
	ins, err := s.r.store.Claim(ctx, Claim{Owner: s.r.owner, Known: s.r.known, Limit: slots, Lease: s.lease})
	if err != nil {
		s.r.trouble("Claim", err)
	}
	s.free(slots - len(ins))
	for _, in := range ins {
		go s.work(s.newHold(in, began))
	}
	return len(ins) > 0
}

// survey counts what nobody here can run, for Stats.
func (s *session) survey(ctx context.Context) {
	ins, err := s.r.Unknown(ctx, 1000)
	if err != nil {
		if ctx.Err() == nil {
			s.r.trouble("List", err)
		}
		return
	}
	s.r.stats.unknown.Store(int64(len(ins)))
}

// take reserves up to n free slots.
func (s *session) take(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0
	}
	n = max(0, min(n, s.r.Config().Concurrency-s.busy))
	s.busy += n
	return n
}

// free gives slots back and reports whether there had been none.
func (s *session) free(n int) (wasFull bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wasFull = s.busy >= s.r.Config().Concurrency
	s.busy -= n
	if s.closed && s.busy == 0 && n > 0 {
		close(s.idle)
	}
	return wasFull
}

// sleepUntil remembers the end of an instance's pause, so that the claim loop need not find it by polling.
func (s *session) sleepUntil(due time.Time) {
	s.mu.Lock()
	if s.next.IsZero() || due.Before(s.next) {
		s.next = due
		defer s.r.Notify()
	}
	s.mu.Unlock()
}

// untilNext is the time to the next known end of a pause, if it is less than d.
func (s *session) untilNext(d time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.IsZero() {
		return d
	}
	left := time.Until(s.next)
	if left <= 0 {
		s.next = time.Time{}
		return min(d, pollMin)
	}
	return min(d, left)
}

func (s *session) newHold(in Instance, began time.Time) *hold {
	h := &hold{in: in, def: s.r.defs[in.Ref], lost: make(chan struct{}), renewed: began}
	h.ctx, h.cancel = context.WithCancelCause(s.base)
	h.expiry = time.AfterFunc(time.Until(began.Add(s.lease)), h.lose)
	s.mu.Lock()
	s.held[h] = struct{}{}
	s.mu.Unlock()
	s.r.stats.active.Add(1)
	return h
}

// forget stops the heartbeats of a hold.
func (s *session) forget(h *hold) {
	s.mu.Lock()
	delete(s.held, h)
	s.mu.Unlock()
}

// lose ends the attempt under way: from now on another node may have the instance.
func (h *hold) lose() {
	h.once.Do(func() {
		close(h.lost)
		h.cancel(ErrFenced)
	})
}

func (h *hold) isLost() bool {
	select {
	case <-h.lost:
		return true
	default:
		return false
	}
}

// renew notes that the lease was extended by a call that began at t.
func (h *hold) renew(t time.Time, lease time.Duration) {
	h.mu.Lock()
	h.renewed = t
	h.mu.Unlock()
	h.expiry.Reset(time.Until(t.Add(lease)))
}

func (h *hold) age() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.renewed)
}

// drop frees the slot of a hold that is done with.
func (s *session) drop(h *hold) {
	h.expiry.Stop()
	h.cancel(nil)
	s.forget(h)
	s.r.stats.active.Add(-1)
	if s.free(1) {
		s.r.Notify() // the claim loop may be waiting for a slot
	}
}
