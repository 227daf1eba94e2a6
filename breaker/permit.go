package breaker

import (
	"context"
	"time"
)

// Permit is leave to make one call. It is a value, is held by one goroutine at a time, and must not be copied after
// [Breaker.Acquire] has returned it. Exactly one of Done and Abort has an effect: the first. The zero Permit does nothing.
type Permit struct {
	_     noCopy
	b     *Breaker
	s     *state
	start time.Duration   // where slow calls are judged
	ctx   context.Context // that of Acquire, to tell a cancellation by the caller from a failure
}

// Done reports the result of the call.
func (p *Permit) Done(err error) {
	b := p.b
	if b == nil {
		return
	}
	p.b = nil
	b.record(p.s, p.start, b.outcome(p.ctx, err))
}

// Abort reports a failure, unless Done was called. Deferred, it covers panics, Goexit and forgotten results.
func (p *Permit) Abort() {
	b := p.b
	if b == nil {
		return
	}
	p.b = nil
	b.record(p.s, p.start, Failure)
}

// noCopy makes vet's copylocks check catch copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}
