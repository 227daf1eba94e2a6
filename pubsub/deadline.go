package pubsub

import (
	"context"
	"sync"
	"time"
)

// deadline is the context of one handler call. It becomes a real one, with a timer, when the handler first asks for
// more than a value: a handler that never does costs one allocation instead of five.
type deadline struct {
	parent context.Context
	at     time.Time

	mu     sync.Mutex
	real   context.Context
	cancel context.CancelFunc
	over   bool
}

// Deadline implements context.Context.
func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

// Done implements context.Context.
func (d *deadline) Done() <-chan struct{} { return d.become().Done() }

// Err implements context.Context.
func (d *deadline) Err() error { return d.become().Err() }

// Value implements context.Context. Once there is a real context it answers, so that package context recognises it and
// hangs children on it without a goroutine.
func (d *deadline) Value(key any) any {
	d.mu.Lock()
	ctx := d.real
	d.mu.Unlock()
	if ctx == nil {
		ctx = d.parent
	}
	return ctx.Value(key)
}

func (d *deadline) become() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.real == nil {
		d.real, d.cancel = context.WithDeadline(d.parent, d.at)
		if d.over {
			d.cancel()
		}
	}
	return d.real
}

// finish cancels what came of it, also later.
func (d *deadline) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if d.cancel != nil {
		d.cancel()
	}
}
