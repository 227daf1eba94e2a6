package timeout

import (
	"context"
	"time"
)

// Call is one operation under way, for streams, handlers and proxies: what they begin lasts longer than the function that
// begins it. Make it with [Timeout.Start]; the zero value is not usable. It is safe for concurrent use. Whoever has one must
// call End, on every way out: until then, or until its time is up, it keeps a timer and watches the caller's context; and a
// timeout is counted by End only.
type Call struct {
	cfg     *Config
	limited callContext
}

// Start begins a call. It does not block.
func (t *Timeout) Start(ctx context.Context) *Call {
	cfg := t.begin()
	return &Call{cfg: cfg, limited: callContext{parent: ctx, t: t, until: time.Since(t.base) + cfg.After}}
}

// Context is what the operation has to obey. It ends in time, and with End.
func (c *Call) Context() context.Context {
	if c.cfg.After < 0 {
		return c.limited.parent
	}
	return &c.limited
}

// End says how the operation ended and releases what the call holds. It returns err as it is, or a *[Error] around it when
// this timeout was the reason. It may be called again: after a nil, such as that of a deferred End or of closing a stream, an
// error that the timeout had caused before is still recognised, and however many such errors there are, they count once.
func (c *Call) End(err error) error {
	if c.cfg.After < 0 {
		return err
	}
	err = c.limited.judge(c.cfg, err)
	c.limited.end(returned)
	return err
}
