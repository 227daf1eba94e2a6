package saga

import (
	"context"
	"sync"
	"time"
)

// Attempt tells a running Do or Undo what it belongs to.
type Attempt struct {
	// Definition, Version and ID name the instance.
	Definition string
	Version    int
	ID         string
	// Step and Direction name the function; the step of a branch is "group/branch".
	Step      string
	Direction Direction
	// Number is the number of the attempt, from 1.
	Number int
	// Cause tells an Undo why the saga turned back: the text of the error. It is empty in a Do.
	Cause string
}

// Key is the idempotency key of this direction of the step: the same over all attempts, nodes and restarts.
func (a Attempt) Key() string { return a.ID + "/" + a.Step + "/" + string(a.Direction) }

// DoKey is the key that the step's Do has or had. An Undo finds by it the effect of a Do whose answer was lost.
func (a Attempt) DoKey() string { return a.ID + "/" + a.Step + "/" + string(Forward) }

type attemptKey struct{}

// Current returns the attempt that ctx belongs to, and false outside of a step.
func Current(ctx context.Context) (Attempt, bool) {
	a, ok := ctx.Value(attemptKey{}).(*Attempt)
	if !ok {
		return Attempt{}, false
	}
	return *a, true
}

// IdempotencyKey is the Key of the attempt that ctx belongs to: "<id>/<step>/do" or "<id>/<step>/undo". It is empty
// outside of a step. Hand it to every system that the step calls.
func IdempotencyKey(ctx context.Context) string {
	if a, ok := ctx.Value(attemptKey{}).(*Attempt); ok {
		return a.Key()
	}
	return ""
}

// attemptCtx is the context of an attempt. Most attempts only hand it on, so that the timer and the links to what may end it
// are made when somebody asks for them.
type attemptCtx struct {
	attempt  Attempt
	h        *hold
	deadline time.Time       // zero for none
	tx       context.Context // the store's transaction, or nil

	mu     sync.Mutex
	real   context.Context
	cancel context.CancelCauseFunc // of real
	stop   context.CancelFunc      // of its timer, if any
	over   bool                    // the attempt has returned
}

// Deadline implements context.Context.
func (c *attemptCtx) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done implements context.Context.
func (c *attemptCtx) Done() <-chan struct{} { return c.realise().Done() }

// Err implements context.Context.
func (c *attemptCtx) Err() error {
	c.mu.Lock()
	live := c.real == nil && !c.over
	c.mu.Unlock()
	if live && c.h.ending() == nil && c.h.s.base.Err() == nil && (c.deadline.IsZero() || time.Now().Before(c.deadline)) {
		return nil
	}
	return c.realise().Err()
}

// Value implements context.Context.
func (c *attemptCtx) Value(key any) any {
	if key == (attemptKey{}) {
		return &c.attempt
	}
	v := c.realise().Value(key)
	if v == nil && c.tx != nil {
		v = c.tx.Value(key)
	}
	return v
}

// interrupt cancels the context of this attempt alone.
func (c *attemptCtx) interrupt(cause error) {
	c.realise()
	c.cancel(cause)
}

// realise makes the context that it stands for.
func (c *attemptCtx) realise() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real != nil {
		return c.real
	}
	c.real, c.cancel = context.WithCancelCause(c.h.s.base)
	if !c.deadline.IsZero() {
		c.real, c.stop = context.WithDeadline(c.real, c.deadline)
	}
	if c.over {
		c.release()
	} else if cause := c.h.enlist(c); cause != nil {
		c.cancel(cause)
	}
	return c.real
}

// end is called when the attempt has returned.
func (c *attemptCtx) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.real != nil {
		c.h.discharge(c)
		c.release()
	}
}

func (c *attemptCtx) release() {
	if c.stop != nil {
		c.stop()
	}
	c.cancel(nil)
}
