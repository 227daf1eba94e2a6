package saga

import (
	"context"
	"sync"
	"time"
)

// callCtx bounds a call of the store by a deadline, and makes the timer for it only when somebody asks: a store in memory
// never does.
type callCtx struct {
	base     context.Context
	deadline time.Time

	mu    sync.Mutex
	asked bool // Err was called: from then on the clock is looked at
	real  context.Context
	stop  context.CancelFunc
}

// Deadline implements context.Context.
func (c *callCtx) Deadline() (time.Time, bool) { return c.deadline, true }

// Done implements context.Context.
func (c *callCtx) Done() <-chan struct{} { return c.realise().Done() }

// Err implements context.Context. Most stores in memory ask once, as the call begins.
func (c *callCtx) Err() error {
	c.mu.Lock()
	used, again := c.real != nil, c.asked
	c.asked = true
	c.mu.Unlock()
	if !used && (!again || time.Now().Before(c.deadline)) {
		return c.base.Err()
	}
	return c.realise().Err()
}

// Value implements context.Context.
func (c *callCtx) Value(key any) any { return c.realise().Value(key) }

func (c *callCtx) realise() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		c.real, c.stop = context.WithDeadline(c.base, c.deadline)
	}
	return c.real
}

// end returns the context for the next call, or nil if somebody may still hold it.
func (c *callCtx) end() *callCtx {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = false
	if c.real == nil {
		return c
	}
	c.stop()
	return nil
}
