package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// loadContext is the context of one load: the values of the first caller's context, the load timeout and the
// cache's own end. It becomes a real context when somebody waits for it: a load that answers without
// waiting has no use for a timer and does not pay for one.
type loadContext struct {
	from     lifeContext
	deadline time.Time // zero without a load timeout
	over     atomic.Bool
	armed    atomic.Pointer[armedContext]
	mu       sync.Mutex // held to arm
}

// lifeContext ends with the cache and has the values of a caller, but not its end.
type lifeContext struct {
	context.Context
	values context.Context
}

type armedContext struct {
	context.Context
	cancel context.CancelFunc
}

// Value asks the cache's life first, in which package context finds the cancellation that Done is of. Its own values
// are none.
func (c lifeContext) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.values.Value(key)
}

// detach prepares the context for a load that begins at start on behalf of caller.
func (c *loadContext) detach(caller, life context.Context, start time.Time, timeout time.Duration) {
	c.from = lifeContext{life, caller}
	if timeout > 0 {
		c.deadline = start.Add(timeout)
	}
}

// Deadline is when the load timeout ends.
func (c *loadContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done arms the timer.
func (c *loadContext) Done() <-chan struct{} { return c.arm().Done() }

// Err looks at the clock where there is no timer.
func (c *loadContext) Err() error {
	if armed := c.armed.Load(); armed != nil {
		return armed.Err()
	}
	expired := !c.deadline.IsZero() && !time.Now().Before(c.deadline)
	if expired || c.over.Load() || c.from.Err() != nil {
		return c.arm().Err()
	}
	return nil
}

// Value asks the armed context first, in which package context finds what makes its own children cheap.
func (c *loadContext) Value(key any) any {
	if armed := c.armed.Load(); armed != nil {
		return armed.Value(key)
	}
	return c.from.Value(key)
}

func (c *loadContext) arm() *armedContext {
	if armed := c.armed.Load(); armed != nil {
		return armed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if armed := c.armed.Load(); armed != nil {
		return armed
	}
	armed := &armedContext{}
	if c.deadline.IsZero() {
		armed.Context, armed.cancel = context.WithCancel(c.from)
	} else {
		armed.Context, armed.cancel = context.WithDeadline(c.from, c.deadline)
	}
	c.armed.Store(armed)
	if c.over.Load() { // end may have come before the Store
		armed.cancel()
	}
	return armed
}

// end releases what there is. An armed context that end does not see yet is released by arm.
func (c *loadContext) end() {
	c.over.Store(true)
	if armed := c.armed.Load(); armed != nil {
		armed.cancel()
	}
}
