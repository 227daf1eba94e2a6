package outboxtest

import (
	"context"
	"slices"
	"sync"

	"github.com/backstay-go/backstay/pubsub"
)

// Publisher is a pubsub.Publisher that keeps what it takes in memory and refuses on demand, with a *pubsub.PublishError for each
// call of which it refuses a part. Its zero value takes everything. It is safe for concurrent use.
type Publisher struct {
	mu      sync.Mutex
	refuse  func(pubsub.Message) error
	taken   []pubsub.Message
	calls   int
	changed chan struct{}
}

// Refuse makes the publisher ask fn about every message from now on; nil means that it is taken. A nil fn takes everything.
func (p *Publisher) Refuse(fn func(pubsub.Message) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = fn
}

// Publish implements pubsub.Publisher. It takes nothing once ctx is done.
func (p *Publisher) Publish(ctx context.Context, msgs ...pubsub.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.signal()
	p.calls++
	var failed []pubsub.Failure
	for i, m := range msgs {
		err := ctx.Err()
		if err == nil && p.refuse != nil {
			err = p.refuse(m)
		}
		if err != nil {
			failed = append(failed, pubsub.Failure{Index: i, ID: m.ID, Err: err})
			continue
		}
		p.taken = append(p.taken, m)
	}
	if len(failed) > 0 {
		return &pubsub.PublishError{Failed: failed, Total: len(msgs)}
	}
	return nil
}

// signal wakes Wait. It is called with the lock held.
func (p *Publisher) signal() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// Messages returns what was taken, in order.
func (p *Publisher) Messages() []pubsub.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.taken)
}

// Calls is how often Publish was called.
func (p *Publisher) Calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

// Wait blocks until done holds for what was taken and the number of calls, or ctx ends, whose error it then returns. It asks again
// after every call of Publish.
func (p *Publisher) Wait(ctx context.Context, done func(taken []pubsub.Message, calls int) bool) error {
	for {
		p.mu.Lock()
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed, taken, calls := p.changed, slices.Clone(p.taken), p.calls
		p.mu.Unlock()
		if done(taken, calls) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
