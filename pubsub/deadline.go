package pubsub

import (
	"context"
	"sync/atomic"
	"time"
)

// deadline is the context of a call that may not take for ever. It becomes a real one, with a timer, when the callee
// first asks for more than a value: one that never does costs one allocation instead of five.
type deadline struct {
	parent context.Context
	at     time.Time
	real   atomic.Pointer[realDeadline] // nil until somebody asks, unasked if nobody did before the end
}

type realDeadline struct {
	context.Context
	cancel context.CancelFunc
}

// unasked is what comes of a deadline that has ended before anybody asked.
var unasked = &realDeadline{Context: context.Background(), cancel: func() {}}

// Deadline implements context.Context.
func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

// Done implements context.Context.
func (d *deadline) Done() <-chan struct{} { return d.become().Done() }

// Err implements context.Context.
func (d *deadline) Err() error { return d.become().Err() }

// Value implements context.Context. Once there is a real context it answers, so that package context recognises it and
// hangs children on it without a goroutine.
func (d *deadline) Value(key any) any {
	if asked := d.real.Load(); asked != nil && asked != unasked {
		return asked.Value(key)
	}
	return d.parent.Value(key)
}

func (d *deadline) become() context.Context {
	for {
		old := d.real.Load()
		if old != nil && old != unasked {
			return old
		}
		ctx, cancel := context.WithDeadline(d.parent, d.at)
		if old == unasked {
			cancel()
		}
		if asked := (&realDeadline{ctx, cancel}); d.real.CompareAndSwap(old, asked) {
			return asked
		}
		cancel() // somebody else was sooner
	}
}

// asked reports whether somebody has asked for more than a value.
func (d *deadline) asked() bool { return d.real.Load() != nil }

// finish cancels what came of it, also later.
func (d *deadline) finish() {
	if !d.real.CompareAndSwap(nil, unasked) {
		d.real.Load().cancel()
	}
}
