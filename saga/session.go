package saga

import (
	"context"
	"sync"
	"time"
)

// session is one call of Run: its slots, its leases and its way to the store.
type session struct {
	r        *Runner
	lease    time.Duration
	base     context.Context // of every attempt: Run's values, but not its end
	detached context.Context // of every call of the store: not even the end of the drain
	kill     context.CancelCauseFunc
	idle     chan struct{} // closed when the last worker of a closed session is gone
	look     chan struct{} // wakes the watch over the leases

	cmu     sync.Mutex
	commits committer

	mu      sync.Mutex
	closed  bool
	busy    int
	busyIn  map[Ref]int   // of the definitions that have a limit
	hungry  bool          // the claim loop would take more if there were slots
	asking  chan struct{} // closed when the claim under way, which has slots reserved, is over
	held    map[*hold]struct{}
	here    map[string]*hold // the latest hold of each instance
	watched time.Time        // when the watch looks next
	next    time.Time        // the earliest known end of a pause, to look at once
}

func newSession(ctx context.Context, r *Runner) *session {
	s := &session{
		r: r, lease: r.Config().Lease, detached: context.WithoutCancel(ctx),
		idle: make(chan struct{}), look: make(chan struct{}, 1), busyIn: map[Ref]int{}, held: map[*hold]struct{}{}, here: map[string]*hold{},
	}
	s.base, s.kill = context.WithCancelCause(s.detached)
	return s
}

// run claims until ctx is done, and drains.
func (s *session) run(ctx context.Context) {
	stop := make(chan struct{})
	var loops sync.WaitGroup
	loops.Go(func() { s.beatLoop(stop) })
	loops.Go(func() { s.watchLoop(stop) })
	loops.Go(func() { s.purgeLoop(ctx) })
	s.claimLoop(ctx)
	s.drain()
	close(stop)
	loops.Wait()
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
			s.lookAtBacklog(ctx)
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
	for _, known := range s.r.claimable() {
		found = s.claimOf(ctx, known) || found
	}
	return found
}

// claimOf claims instances of definitions that have no limit, or of one that has.
func (s *session) claimOf(ctx context.Context, known []Ref) bool {
	slots := s.reserve(known[0])
	if slots == 0 {
		return false
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.lease)
	defer cancel()
	ins, err := s.r.store.Claim(ctx, Claim{Owner: s.r.owner, Known: known, Limit: slots, Lease: s.lease})
	if err != nil {
		s.r.trouble("Claim", err)
	}
	s.settle(slots, len(ins), known[0])
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

// reserve takes all free slots for a claim, until settle.
func (s *session) reserve(ref Ref) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.take(s.r.Config().Concurrency, ref)
	if n == 0 {
		s.hungry = true
	} else {
		s.asking = make(chan struct{})
	}
	return n
}

// settle gives back what a claim has reserved and does not need.
func (s *session) settle(slots, needed int, ref Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.give(slots-needed, ref)
	s.hungry = s.hungry || needed == slots
	close(s.asking)
	s.asking = nil
}

// takeOne takes a slot for an instance that is to be started. A claim that is under way has all of them reserved, and mostly needs
// none.
func (s *session) takeOne(ctx context.Context, ref Ref) bool {
	for {
		s.mu.Lock()
		n, asking := s.take(1, ref), s.asking
		s.mu.Unlock()
		if n == 1 || asking == nil {
			return n == 1
		}
		select {
		case <-asking:
		case <-ctx.Done():
			return false
		}
	}
}

// take reserves up to n free slots for instances of a definition, or of those without a limit. The caller has s.mu.
func (s *session) take(n int, ref Ref) int {
	limit := s.r.defs[ref].plan().limits.Concurrency
	if s.closed {
		return 0
	}
	n = min(n, s.r.Config().Concurrency-s.busy)
	if limit > 0 {
		n = min(n, limit-s.busyIn[ref])
	}
	n = max(0, n)
	if limit > 0 {
		s.busyIn[ref] += n
	}
	s.busy += n
	return n
}

// free gives a slot back, and wakes the claim loop if it has been waiting for one.
func (s *session) free(ref Ref) {
	limit := s.r.defs[ref].plan().limits.Concurrency
	s.mu.Lock()
	wake := s.hungry && (s.busy >= s.r.Config().Concurrency || (limit > 0 && s.busyIn[ref] >= limit))
	s.hungry = s.hungry && !wake
	s.give(1, ref)
	s.mu.Unlock()
	if wake {
		s.r.Notify()
	}
}

// give gives slots back. The caller has s.mu.
func (s *session) give(n int, ref Ref) {
	s.busy -= n
	if s.r.defs[ref].plan().limits.Concurrency > 0 {
		s.busyIn[ref] -= n
	}
	if s.closed && s.busy == 0 && n > 0 {
		close(s.idle)
	}
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

// forget stops the heartbeats of a hold.
func (s *session) forget(h *hold) {
	s.mu.Lock()
	delete(s.held, h)
	s.mu.Unlock()
}

// drop frees the slot of a hold that is done with, and then tells those who wait for the end of the instance: they may want the slot.
func (s *session) drop(h *hold) {
	s.forget(h)
	s.r.stats.active.Add(-1)
	s.free(h.in.Ref)
	s.mu.Lock()
	if s.here[h.in.ID] == h { // until now those who wait for its end look no further than here
		delete(s.here, h.in.ID)
	}
	s.mu.Unlock()
	if !h.in.Status.Active() {
		s.r.signal(h.in.ID, h)
	}
}
