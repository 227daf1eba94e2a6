package timeout

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
)

// Abandon returns fn bounded by t even where fn ignores its context: fn runs on a goroutine of its own, and when its time is
// up, or the caller's context ends, the caller gets its error at once and fn runs on alone. Use it only for code that cannot be
// made to obey a context; [Wrap] costs less and leaves nothing behind.
//
// The result is safe for concurrent use when fn is. A result that fn returned before it was abandoned always reaches the caller;
// a later one is dropped, so what fn returns must not need closing. A panic of fn reaches the caller as a *[Panic], Goexit as
// Goexit. The Stats count what runs on; to bound it put a bulkhead round fn, inside: what was abandoned keeps its permit until
// it returns.
func Abandon[In, Out any](t *Timeout, fn func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	if t == nil || fn == nil {
		panic("timeout: Abandon: the timeout or the function is nil")
	}
	return func(ctx context.Context, in In) (Out, error) {
		var none Out
		if err := ctx.Err(); err != nil {
			return none, err
		}
		cfg := t.begin()
		var limited *callContext
		if cfg.After > 0 {
			limited = t.newContext(ctx, cfg.After)
			defer limited.end(returned)
			ctx = limited
		}
		c := &abandonable[Out]{returned: make(chan struct{})}
		go func() {
			defer c.end(t)
			c.out, c.err = fn(ctx, in)
			c.how = byReturn
		}()
		select {
		case <-c.returned:
		case <-ctx.Done():
			if c.abandon(t) {
				return none, limited.judge(cfg, ctx.Err())
			}
			<-c.returned
		}
		out, err := c.result()
		return out, limited.judge(cfg, err)
	}
}

// abandonable is one call on a goroutine of its own. Its fields are the goroutine's until returned is closed.
type abandonable[Out any] struct {
	settled  atomic.Bool // by whoever is first: the goroutine that returns, or the caller that leaves
	returned chan struct{}
	how      ending
	panicked *Panic
	out      Out
	err      error
}

type ending int

const (
	byGoexit ending = iota // what it is until the function says otherwise
	byReturn
	byPanic
)

// abandon reports whether the caller may leave; otherwise the result is there.
func (c *abandonable[Out]) abandon(t *Timeout) bool {
	t.abandoned.Add(1)
	if c.settled.CompareAndSwap(false, true) {
		return true
	}
	t.abandoned.Add(-1)
	return false
}

// end runs deferred on the goroutine of the function, so that the stack of a panic is still there.
func (c *abandonable[Out]) end(t *Timeout) {
	if value := recover(); value != nil {
		c.how, c.panicked = byPanic, &Panic{Value: value, Stack: debug.Stack()}
	}
	if c.settled.CompareAndSwap(false, true) {
		close(c.returned)
		return
	}
	if c.panicked != nil {
		t.panickedLate(c.panicked)
	}
	t.abandoned.Add(-1)
}

// result ends the caller as the function ended.
func (c *abandonable[Out]) result() (Out, error) {
	switch c.how {
	case byPanic:
		panic(c.panicked)
	case byGoexit:
		runtime.Goexit()
	}
	return c.out, c.err
}

func (t *Timeout) panickedLate(p *Panic) {
	t.latePanics.Add(1)
	if t.onLatePanic != nil {
		t.onLatePanic(p)
	}
}

// Panic is what a caller recovers when the function of [Abandon] panicked on its own goroutine.
type Panic struct {
	Value any    // what the function panicked with
	Stack []byte // of the goroutine that panicked
}

// Error gives the value and the stack.
func (p *Panic) Error() string { return fmt.Sprintf("timeout: panic: %v\n\n%s", p.Value, p.Stack) }

// Unwrap returns Value if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}
