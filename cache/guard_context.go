package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// callContext is a caller's context with a limit on the time of one call. The limit counts from when the callee first looks
// at the context, so that one which has the answer at hand costs neither a timer nor a reading of the clock.
type callContext struct {
	context.Context // the caller's
	limit           time.Duration
	// lease leaves Deadline to be the caller's. Done and Err obey the limit all the same. The lease that the call asks for
	// must last as long as the caller's load, but the call must not.
	lease bool

	looked  atomic.Bool // limited is set
	mu      sync.Mutex
	limited context.Context
	cancel  context.CancelFunc
}

// look returns the limited context.
func (c *callContext) look() context.Context {
	if c.looked.Load() {
		return c.limited
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.limited != nil {
		return c.limited
	}
	deadline, ok := c.Context.Deadline()
	if c.limit <= 0 || ok && time.Until(deadline) <= c.limit {
		c.limited = c.Context
	} else {
		c.limited, c.cancel = context.WithTimeout(c.Context, c.limit)
	}
	c.looked.Store(true)
	return c.limited
}

// release frees what the limit holds, once the call is over.
func (c *callContext) release() {
	if c.looked.Load() && c.cancel != nil {
		c.cancel()
	}
}

func (c *callContext) Deadline() (time.Time, bool) {
	if c.lease {
		return c.Context.Deadline()
	}
	return c.look().Deadline()
}

func (c *callContext) Done() <-chan struct{} { return c.look().Done() }

func (c *callContext) Err() error { return c.look().Err() }

// Value asks the limited context once there is one, which is how package context finds it, and so derives from this context
// without a goroutine.
func (c *callContext) Value(key any) any {
	if c.looked.Load() {
		return c.limited.Value(key)
	}
	return c.Context.Value(key)
}
