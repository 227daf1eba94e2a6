package timeout

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// callContext is the context of one call. It behaves as that of context.WithDeadlineCause, which it becomes when somebody waits
// for it: an operation that answers without waiting, such as from a cache, has no use for a timer and does not pay for one.
type callContext struct {
	parent context.Context
	t      *Timeout
	until  time.Duration // since t.base
	asked  atomic.Int32
	over   atomic.Bool // the call has returned
	armed  atomic.Pointer[armedContext]
	mu     sync.Mutex // held to arm
}

type armedContext struct {
	context.Context
	cancel context.CancelFunc
}

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

// Done arms the timer.
func (c *callContext) Done() <-chan struct{} { return c.arm().Done() }

// Err looks at the clock where there is no timer.
func (c *callContext) Err() error {
	if armed := c.armed.Load(); armed != nil {
		return armed.Err()
	}
	if c.over.Load() {
		return c.arm().Err()
	}
	if err := c.parent.Err(); err != nil {
		return err
	}
	if time.Since(c.t.base) < c.until && c.asked.Add(1) < cheaperAsked {
		return nil
	}
	return c.arm().Err()
}

// Value asks the armed context first, in which package context finds what makes its own children cheap.
func (c *callContext) Value(key any) any {
	if armed := c.armed.Load(); armed != nil {
		return armed.Value(key)
	}
	return c.parent.Value(key)
}

// String names the context as package context does, without touching what may be changing.
func (c *callContext) String() string { return fmt.Sprintf("%v.Timeout", c.parent) }

func (c *callContext) arm() *armedContext {
	if armed := c.armed.Load(); armed != nil {
		return armed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if armed := c.armed.Load(); armed != nil {
		return armed
	}
	armed := &armedContext{}
	armed.Context, armed.cancel = context.WithDeadlineCause(c.parent, c.t.base.Add(c.until), c.t.ranOut)
	c.armed.Store(armed)
	if c.over.Load() { // end may have come before the Store
		armed.cancel()
	}
	return armed
}

// end releases what there is. An armed context that end does not see yet is released by arm.
func (c *callContext) end() {
	c.over.Store(true)
	if armed := c.armed.Load(); armed != nil {
		armed.cancel()
	}
}
