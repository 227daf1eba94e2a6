package pubsub

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// settler passes verdicts to the broker, as many at a time as have gathered while the last call was under way.
type settler struct {
	receiver Receiver
	lease    time.Duration
	accepted func(batch []settlement, until time.Time) // called after a batch was dealt with; until: of its extensions

	mu      sync.Mutex
	pending []settlement
	backlog int           // verdicts given and not yet accepted
	wake    chan struct{} // capacity 1: there is something to do
	lost    atomic.Int64  // verdicts given up because the lease ran out first
	failed  atomic.Int64  // calls of Settle that failed
}

// settlement is a verdict with the item it is about.
type settlement struct {
	Verdict
	it       *item
	deadline time.Time // when the lease ends: a later verdict would be about somebody else's delivery
}

func newSettler(r Receiver, lease time.Duration, accepted func([]settlement, time.Time)) *settler {
	return &settler{receiver: r, lease: lease, accepted: accepted, wake: make(chan struct{}, 1)}
}

// add queues verdicts. They keep their order.
func (s *settler) add(batch ...settlement) {
	if len(batch) == 0 {
		return
	}
	s.mu.Lock()
	s.pending = append(s.pending, batch...)
	s.backlog += len(batch)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// waiting is the number of verdicts that the broker has not accepted yet.
func (s *settler) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.backlog
}

// run settles until ctx is done. What is then left is for flush.
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
	var batch []settlement
	delay := min(50*time.Millisecond, s.lease/10)
	for {
		batch = s.take(batch)
		if len(batch) == 0 {
			return nil
		}
		err := s.settle(ctx, batch)
		if err == nil {
			batch = batch[:0]
			delay = min(50*time.Millisecond, s.lease/10)
			continue
		}
		s.failed.Add(1)
		batch = s.keep(batch)
		if !pause(ctx, delay) {
			s.putBack(batch)
			return err
		}
		delay = min(2*delay, s.lease/10)
	}
}

// settle makes one call, no longer than a third of the lease, so that a hanging one leaves time for another.
func (s *settler) settle(ctx context.Context, batch []settlement) error {
	verdicts := make([]Verdict, len(batch))
	for i := range batch {
		verdicts[i] = batch[i].Verdict
	}
	ctx, cancel := context.WithTimeout(ctx, s.lease/3)
	defer cancel()
	begun := time.Now()
	if err := s.receiver.Settle(ctx, verdicts); err != nil {
		return err
	}
	s.forget(len(batch))
	s.accepted(batch, begun.Add(s.lease))
	return nil
}

// take appends what is pending to batch.
func (s *settler) take(batch []settlement) []settlement {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch = append(batch, s.pending...)
	clear(s.pending)
	s.pending = s.pending[:0]
	return batch
}

// keep drops from a failed batch what another try cannot help: extensions, which are asked for anew, and verdicts whose
// lease is over.
func (s *settler) keep(batch []settlement) []settlement {
	now := time.Now()
	kept := batch[:0]
	for _, p := range batch {
		switch {
		case p.Kind == Extend:
		case !p.deadline.After(now):
			s.lost.Add(1)
		default:
			kept = append(kept, p)
		}
	}
	s.forget(len(batch) - len(kept))
	s.accepted(nil, now)
	return kept
}

func (s *settler) forget(n int) {
	s.mu.Lock()
	s.backlog -= n
	s.mu.Unlock()
}

func (s *settler) putBack(batch []settlement) {
	s.mu.Lock()
	s.pending = append(batch, s.pending...)
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
