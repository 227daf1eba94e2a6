package timeout

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// callContext is the context of one call. It behaves as that of context.WithDeadlineCause, but makes nothing before somebody
// waits for it: an operation that answers without waiting, such as from a cache, has no use for a timer and does not pay for
// one. It is not built on a context of the standard library, which would be a second one for every call that does wait.
type callContext struct {
	parent  context.Context
	t       *Timeout
	until   time.Duration // since t.base
	asked   atomic.Int32
	outcome atomic.Int32
	armed   atomic.Bool // done is there, and what may end the context is watched
	counted atomic.Bool // among the calls that timed out

	mu       sync.Mutex // held to arm and to release; that of a child before that of its parent
	done     chan struct{}
	released bool
	timer    *time.Timer
	leave    func() bool // stop watching a parent of another kind
	place    watcher     // among those who watch a parent of this kind
	first    *watcher    // of those who watch this one
}

// The outcomes: the first to be reached stays.
const (
	running int32 = iota
	timedOut
	callerLeft
	returned
)

// cheaperAsked is how often Err reads the clock before a timer is the cheaper way to know.
const cheaperAsked = 16

func (t *Timeout) newContext(parent context.Context, after time.Duration) *callContext {
	return &callContext{parent: parent, t: t, until: time.Since(t.base) + after}
}

// Deadline is the earlier of the caller's and that of the timeout.
func (c *callContext) Deadline() (time.Time, bool) {
	own := c.t.base.Add(c.until)
	if callers, ok := c.parent.Deadline(); ok && callers.Before(own) {
		return callers, true
	}
	return own, true
}

// Done arms the context. News of the end of the caller's may still be on its way here, so it asks.
func (c *callContext) Done() <-chan struct{} {
	if !c.armed.Load() {
		c.arm()
	}
	if c.Err() != nil {
		c.release()
	}
	return c.done
}

// Err looks at the clock where there is no timer.
func (c *callContext) Err() error {
	if c.outcome.Load() == running {
		c.look()
	}
	switch c.outcome.Load() {
	case timedOut:
		return context.DeadlineExceeded
	case callerLeft:
		return c.parent.Err()
	case returned:
		return context.Canceled
	default:
		return nil
	}
}

func (c *callContext) look() {
	switch {
	case c.parent.Err() != nil:
		c.end(callerLeft)
	case c.armed.Load(): // the timer will tell
	case c.overdue():
		c.end(timedOut)
	case c.asked.Add(1) >= cheaperAsked:
		c.arm()
	}
}

func (c *callContext) overdue() bool { return time.Since(c.t.base) >= c.until }

// callKey finds the innermost callContext.
type callKey struct{}

// Where context.Cause finds the cause of contexts that have ended by themselves: it asks for it by a key of its own.
var (
	timedOutCall = ended(&cause{})
	returnedCall = ended(context.Canceled)
)

func ended(cause error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return ctx
}

// Value asks the caller's context. Once this one has ended otherwise, context.Cause must not find the cause of the caller's,
// which may end later.
func (c *callContext) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	var own any
	switch c.outcome.Load() {
	case timedOut:
		own = timedOutCall.Value(key)
	case returned:
		own = returnedCall.Value(key)
	}
	if own != nil {
		return own
	}
	return c.parent.Value(key)
}

// String names the context as package context does, without touching what may be changing.
func (c *callContext) String() string { return fmt.Sprintf("%v.Timeout", c.parent) }

// AfterFunc calls f on a goroutine of its own when the context has ended, unless stop is called before. Package context uses
// it to end the children that it makes of this context.
func (c *callContext) AfterFunc(f func()) (stop func() bool) {
	c.Done()
	w := &watcher{tell: func() { go f() }}
	if !w.join(c) {
		w.tell()
	}
	return w.leave
}

func (c *callContext) arm() {
	c.mu.Lock()
	if !c.armed.Load() {
		c.done = make(chan struct{})
		if c.outcome.Load() == running {
			c.listen()
		}
		c.armed.Store(true)
	}
	c.mu.Unlock()
	if c.outcome.Load() != running { // end may have come before the Store
		c.release()
	}
}

// listen waits for the time and for the caller's context. It is called with mu held.
func (c *callContext) listen() {
	wake := c.wake
	own := c.t.base.Add(c.until)
	if deadline, _ := c.Deadline(); deadline.Equal(own) {
		c.timer = time.AfterFunc(c.until-time.Since(c.t.base), wake)
	}
	done := c.parent.Done()
	if done == nil {
		return
	}
	if p, ok := c.parent.Value(callKey{}).(*callContext); ok && p.Done() == done {
		c.place.tell = wake
		c.place.join(p)
		return
	}
	c.leave = context.AfterFunc(c.parent, wake)
}

func (c *callContext) wake() {
	if c.parent.Err() != nil {
		c.end(callerLeft)
		return
	}
	c.end(timedOut)
}

// end is called when the context ends, and releases what there is. An armed context that it does not see yet is released by
// arm.
func (c *callContext) end(outcome int32) {
	if c.outcome.CompareAndSwap(running, outcome) && c.armed.Load() {
		c.release()
	}
}

// release closes the channel and tells those who watch, once.
func (c *callContext) release() {
	c.mu.Lock()
	if c.released {
		c.mu.Unlock()
		return
	}
	c.released = true
	close(c.done)
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.leave != nil {
		c.leave()
	}
	c.place.leave()
	c.mu.Unlock()
	for w := c.first; w != nil; w = w.next { // the list does not change any more
		w.tell()
	}
}
