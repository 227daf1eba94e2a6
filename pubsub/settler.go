package pubsub

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// settler passes verdicts to the broker, as many at a time as have gathered while the last call was under way.
type settler struct {
	receiver Receiver
	lease    time.Duration
	clock    clock
	accepted func(batch []settlement, until time.Duration) // called after a batch was dealt with; until: of its extensions

	calling sync.Mutex // held while Settle is called; guards the next three
	batch   []settlement
	passed  []Verdict
	ended   bool // last has begun: nobody else calls Settle any more

	mu      sync.Mutex
	pending []settlement
	backlog atomic.Int64  // verdicts given and not yet accepted
	wake    chan struct{} // capacity 1: there is something to do
	lost    atomic.Int64  // verdicts given up because the lease ran out first
	failed  atomic.Int64  // calls of Settle that failed
}

// settlement is a verdict with the item it is about.
type settlement struct {
	Verdict
	it       *item         // of an Extend
	deadline time.Duration // when the lease ends: a later verdict would be about somebody else's delivery
}

func newSettler(r Receiver, lease time.Duration, clock clock, accepted func([]settlement, time.Duration)) *settler {
	return &settler{receiver: r, lease: lease, clock: clock, accepted: accepted, wake: make(chan struct{}, 1)}
}

// add queues verdicts, for stir or now to settle. They keep their order.
func (s *settler) add(batch ...settlement) {
	if len(batch) == 0 {
		return
	}
	s.mu.Lock()
	s.pending = append(s.pending, batch...)
	s.mu.Unlock()
	s.backlog.Add(int64(len(batch)))
}

// swap is add for a slice that the settler may keep; it returns an empty one for it.
func (s *settler) swap(batch []settlement) []settlement {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backlog.Add(int64(len(batch)))
	if len(s.pending) == 0 {
		s.pending, batch = batch, s.pending
		return batch
	}
	s.pending = append(s.pending, batch...)
	clear(batch)
	return batch[:0]
}

// stir has the settler's goroutine settle what is queued.
func (s *settler) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// waiting is the number of verdicts that the broker has not accepted yet.
func (s *settler) waiting() int { return int(s.backlog.Load()) }

// now settles what is queued on the goroutine of the caller, which is for drivers whose Settle does not block. If it is
// being called already, or fails, it is up to the settler's goroutine.
func (s *settler) now() {
	if !s.calling.TryLock() {
		s.stir()
		return
	}
	defer s.calling.Unlock()
	if s.ended {
		return
	}
	s.batch = s.take(s.batch[:0])
	if len(s.batch) == 0 {
		return
	}
	if err := s.settle(context.Background(), s.batch); err != nil {
		s.failed.Add(1)
		s.putBack(s.keep(s.batch))
		s.stir()
	}
}

// last is the flush after which nothing is settled any more.
func (s *settler) last(ctx context.Context) error {
	s.calling.Lock()
	s.ended = true
	s.calling.Unlock()
	return s.flush(ctx)
}

// run settles until ctx is done. What is then left is for last.
func (s *settler) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			_ = s.flush(ctx) // fails only at the end of ctx, and lastSettle goes on
		}
	}
}

// flush settles everything, trying again while the leases last, until ctx is done. It returns the last failure when
// something remains.
func (s *settler) flush(ctx context.Context) error {
	s.calling.Lock()
	defer s.calling.Unlock()
	delay := min(50*time.Millisecond, s.lease/10)
	for s.batch = s.batch[:0]; ; {
		s.batch = s.take(s.batch)
		if len(s.batch) == 0 {
			return nil
		}
		limit := &deadline{parent: ctx, at: s.limit(ctx)}
		err := s.settle(limit, s.batch)
		limit.finish()
		if err == nil {
			s.batch = s.batch[:0]
			delay = min(50*time.Millisecond, s.lease/10)
			continue
		}
		s.failed.Add(1)
		s.batch = s.keep(s.batch)
		if !pause(ctx, delay) {
			s.putBack(s.batch)
			return err
		}
		delay = min(2*delay, s.lease/10)
	}
}

// limit is the end of a call: a third of the lease, so that a hanging one leaves time for another.
func (s *settler) limit(ctx context.Context) time.Time {
	at := time.Now().Add(s.lease / 3)
	if sooner, ok := ctx.Deadline(); ok && sooner.Before(at) {
		return sooner
	}
	return at
}

// settle makes one call.
func (s *settler) settle(ctx context.Context, batch []settlement) error {
	s.passed = s.passed[:0]
	for i := range batch {
		s.passed = append(s.passed, batch[i].Verdict)
	}
	defer clear(s.passed)
	begun := s.clock.now()
	if err := s.receiver.Settle(ctx, s.passed); err != nil {
		return err
	}
	s.backlog.Add(-int64(len(batch)))
	s.accepted(batch, later(begun, s.lease))
	clear(batch)
	return nil
}

// take appends what is pending to batch.
func (s *settler) take(batch []settlement) []settlement {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(batch) == 0 {
		s.pending, batch = batch, s.pending
		return batch
	}
	batch = append(batch, s.pending...)
	clear(s.pending)
	s.pending = s.pending[:0]
	return batch
}

// keep drops from a failed batch what another try cannot help: extensions, which are asked for anew, and verdicts whose
// lease is over.
func (s *settler) keep(batch []settlement) []settlement {
	now := s.clock.now()
	kept := batch[:0]
	for _, p := range batch {
		switch {
		case p.Kind == Extend:
		case p.deadline <= now:
			s.lost.Add(1)
		default:
			kept = append(kept, p)
		}
	}
	s.backlog.Add(int64(len(kept) - len(batch)))
	s.accepted(nil, now)
	return kept
}

func (s *settler) putBack(batch []settlement) {
	s.mu.Lock()
	s.pending = slices.Concat(batch, s.pending)
	s.mu.Unlock()
}

// pause waits and reports whether ctx lasted.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
