package redistest

import (
	"sync"
	"testing"
	"time"
)

// Pulse measures how far a busy machine holds this process up, by which bounds on real time have to be wider.
type Pulse struct {
	mu   sync.Mutex
	last time.Time
	gap  time.Duration
}

// NewPulse measures from now on until the test ends.
func NewPulse(t testing.TB) *Pulse {
	p := &Pulse{last: time.Now()}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.beat()
			case <-ended:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(ended)
		<-done
	})
	return p
}

// beat returns the longest time between two beats.
func (p *Pulse) beat() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.gap = max(p.gap, now.Sub(p.last))
	p.last = now
	return p.gap
}

// Bound is d and what the machine may have added so far. A call passes through several goroutines and processes, each of which
// may be held up; on a machine with nothing else to do that adds some ten milliseconds.
func (p *Pulse) Bound(d time.Duration) time.Duration { return d + 10*p.beat() }
