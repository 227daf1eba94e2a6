package pubsub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// defaultPublishTimeout bounds a Publish whose caller did not.
const defaultPublishTimeout = 30 * time.Second

// graceToAnswer is how long a driver may take to say, once the context of a publish is done, what became of it.
const graceToAnswer = time.Second

// WithPublishTimeout sets how long Bus.Publish waits for the broker when its context has no earlier deadline. Default
// and zero: 30s. Negative: as long as the context.
func WithPublishTimeout(d time.Duration) Option {
	return func(b *Bus) { b.publishTimeout = configdata.Default(d, defaultPublishTimeout) }
}

// Publish sends messages and returns nil when the broker has accepted all of them, as durably as
// Capabilities.Durability says. Empty IDs and zero times are filled in, in copies. It blocks until the broker answers,
// ctx is done or the publish timeout is over (see WithPublishTimeout); a full in-memory queue makes it wait too. A
// driver that has not answered a second later is left behind, its messages in doubt.
//
// Every error is a *PublishError that says which messages failed and whether they are in doubt. A message that cannot be
// published as it is (a bad topic or header, a payload that is too long, a DeliverAt that the driver cannot keep) is
// refused before anything is sent, and the failure of such a message has Permanent() true. Messages of one call keep
// their order within a key.
func (b *Bus) Publish(ctx context.Context, msgs ...Message) error {
	if len(msgs) == 0 {
		return nil
	}
	out := make([]Message, len(msgs))
	copy(out, msgs)
	now := time.Now()
	for i := range out {
		m := &out[i]
		if m.ID == "" {
			m.ID = newID()
		}
		if m.Time.IsZero() {
			m.Time = now
		}
		if !m.DeliverAt.IsZero() && !m.DeliverAt.After(now) {
			m.DeliverAt = time.Time{}
		}
		m.Attempt = 0
	}
	caps := b.capabilities()
	err := b.refuse(ctx, out, caps)
	if err == nil {
		err = publishError(out, b.send(ctx, out, caps, now))
	}
	return b.counts.count(len(out), err)
}

// capabilities are those of now. A new answer of the driver costs the caller a copy, the one that stays nothing.
func (b *Bus) capabilities() *Capabilities {
	if b.fixed.Fixed {
		return &b.fixed
	}
	caps := b.driver.Capabilities()
	return &caps
}

// refuse finds what is wrong before anything is sent.
func (b *Bus) refuse(ctx context.Context, msgs []Message, caps *Capabilities) error {
	if b.refusing.Load() {
		return publishError(msgs, repeat(ErrClosed, len(msgs)))
	}
	if err := ctx.Err(); err != nil {
		return publishError(msgs, repeat(err, len(msgs)))
	}
	for i := range msgs {
		if caps.unfit(&msgs[i]) != nil {
			return caps.refusal(msgs)
		}
	}
	return nil
}

// refusal is the error for messages of which one at least is unfit.
func (c *Capabilities) refusal(msgs []Message) error {
	errs := repeat(errNotSent, len(msgs))
	for i := range msgs {
		if err := c.unfit(&msgs[i]); err != nil {
			errs[i] = err
		}
	}
	return publishError(msgs, errs)
}

// unfit says, with a permanent error, why m can never be published here as it is.
func (c *Capabilities) unfit(m *Message) error {
	if err := m.validate(); err != nil {
		return &invalidError{err}
	}
	if c.MaxPayload > 0 && len(m.Payload) > c.MaxPayload {
		return &invalidError{fmt.Errorf("payload has %d bytes: the broker takes at most %d", len(m.Payload), c.MaxPayload)}
	}
	if !c.DeliverAt && !m.DeliverAt.IsZero() {
		return &CapabilityError{Driver: c.Driver, Capability: "DeliverAt"}
	}
	return nil
}

// send has the driver publish within the publish timeout.
func (b *Bus) send(ctx context.Context, msgs []Message, caps *Capabilities, now time.Time) []error {
	if limit := b.publishTimeout; limit > 0 {
		end := now.Add(limit)
		if sooner, ok := ctx.Deadline(); !ok || end.Before(sooner) {
			d := b.bound(ctx, end)
			defer b.release(d, caps.PublishForgetsContext)
			ctx = d
		}
	}
	if caps.PublishObeysContext {
		return b.driver.Publish(ctx, msgs)
	}
	return b.sendApart(ctx, msgs)
}

// bound makes a context of ctx that ends at the given time.
func (b *Bus) bound(ctx context.Context, at time.Time) *deadline {
	d := b.spare.Swap(nil)
	if d == nil {
		d = &deadline{}
	}
	d.parent, d.at = ctx, at
	return d
}

// release ends what bound has made, and keeps it for the next call if nobody knows it any more.
func (b *Bus) release(d *deadline, forgotten bool) {
	if !forgotten || d.asked() {
		d.finish()
		return
	}
	d.parent = nil
	b.spare.Store(d)
}

// sendApart publishes on a goroutine of its own, which it leaves behind when the driver ignores the end of ctx. It asks for
// that end, so such a ctx is never used again.
func (b *Bus) sendApart(ctx context.Context, msgs []Message) []error {
	answer := make(chan []error, 1)
	go func() { answer <- b.driver.Publish(ctx, msgs) }()
	select {
	case errs := <-answer:
		return errs
	case <-ctx.Done():
	}
	timer := time.NewTimer(graceToAnswer)
	defer timer.Stop()
	select {
	case errs := <-answer:
		return errs
	case <-timer.C:
		return repeat(fmt.Errorf("the driver did not answer: %w: %w", ctx.Err(), ErrInDoubt), len(msgs))
	}
}

// publishError is the *PublishError for a driver's result, or nil.
func publishError(msgs []Message, errs []error) error {
	if errs == nil {
		return nil
	}
	if len(errs) != len(msgs) {
		errs = repeat(fmt.Errorf("the driver answered for %d of %d messages: %w", len(errs), len(msgs), ErrInDoubt), len(msgs))
	}
	pe := &PublishError{Total: len(msgs)}
	for i, err := range errs {
		if err != nil {
			pe.Failed = append(pe.Failed, Failure{Index: i, ID: msgs[i].ID, Err: err, InDoubt: errors.Is(err, ErrInDoubt)})
		}
	}
	if len(pe.Failed) == 0 {
		return nil
	}
	return pe
}

func repeat(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}
