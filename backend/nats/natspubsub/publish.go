package natspubsub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/pubsub"
)

// errDuplicateInProcess is the server's answer, from a cluster, to a message whose twin is being stored.
const errDuplicateInProcess = 10158

// Publish sends the messages, many in flight at a time, and waits for the server's answer to each. An entry of the
// result that wraps pubsub.ErrInDoubt was sent and not answered; any other was not accepted. Messages of one key are
// stored in the order of the call. It returns after Config.PublishTimeout at the latest, whatever the connection does.
// An ID that the stream has seen in its duplicate window, two minutes by default, is accepted and not stored again.
func (d *Driver) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	if len(msgs) == 0 {
		return nil
	}
	now := time.Now()
	c := newCall(ctx, now.Add(d.cfg.PublishTimeout), msgs)
	if err := d.admit(c, now); err != nil {
		c.abandon(err)
	} else {
		d.publisher.publish(c)
	}
	return d.report(c)
}

// admit refuses what cannot be sent: all for the error that it returns, single messages in c.
func (d *Driver) admit(c *call, now time.Time) error {
	if d.closed.Load() {
		return pubsub.ErrClosed
	}
	if err := c.ctx.Err(); err != nil {
		return err
	}
	var last string
	var t *topic
	var err error
	for i := range c.msgs {
		m := &c.msgs[i]
		if i == 0 || m.Topic != last {
			last = m.Topic
			t, err = d.topicFor(c, m.Topic)
		}
		refusal := err
		if refusal == nil && m.DeliverAt.After(now) {
			refusal = d.checkDelay(t, m.DeliverAt.Sub(now))
		}
		if refusal != nil {
			c.refuse(i, refusal)
		}
	}
	return nil
}

// topicFor is ensureStream, given up when the call is over: a connection that hangs keeps its lock for longer.
func (d *Driver) topicFor(c *call, name string) (*topic, error) {
	if t, known := d.topics.Load(name); known {
		return t.(*topic), nil
	}
	ctx, cancel := context.WithDeadline(c.ctx, c.deadline)
	defer cancel()
	type result struct {
		t   *topic
		err error
	}
	found := make(chan result, 1)
	go func() {
		t, err := d.ensureStream(ctx, name)
		found <- result{t, err}
	}()
	select {
	case r := <-found:
		return r.t, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// checkDelay refuses a later DeliverAt where it would come to nothing.
func (d *Driver) checkDelay(t *topic, delay time.Duration) error {
	switch {
	case !d.schedules:
		return &pubsub.CapabilityError{Driver: "nats", Capability: "DeliverAt"}
	case !t.schedules:
		return fmt.Errorf("%w: stream %s: allow message schedules is false, a message with DeliverAt needs true",
			ErrMismatch, d.cfg.streamName(t.name))
	case t.maxAge > 0 && delay >= t.maxAge:
		return fmt.Errorf("DeliverAt is %s away: the stream keeps messages for %s", delay, t.maxAge)
	}
	return nil
}

// report counts the outcome and gives the errors their context.
func (d *Driver) report(c *call) []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	failed := false
	for i, err := range c.errs {
		if err == nil {
			continue
		}
		failed = true
		topic := c.msgs[i].Topic
		switch {
		case isLost(err):
			d.counts.inDoubt.Add(1)
			err = fmt.Errorf("natspubsub %q: topic %s: %w: %w", d.cfg.Name, topic, pubsub.ErrInDoubt, err)
		case errors.Is(err, jetstream.ErrNoStreamResponse):
			d.topics.Delete(topic) // the stream is gone, or has no leader: look again next time
			fallthrough
		default:
			d.counts.refused.Add(1)
			err = fmt.Errorf("natspubsub %q: topic %s: %w", d.cfg.Name, topic, err)
		}
		c.errs[i] = err
	}
	d.counts.duplicates.Add(c.duplicates)
	if !failed {
		d.counts.published.Add(uint64(len(c.msgs)))
		return nil
	}
	for _, err := range c.errs {
		if err == nil {
			d.counts.published.Add(1)
		}
	}
	return c.errs
}

func isLost(err error) bool {
	if _, lost := errors.AsType[*lostError](err); lost {
		return true
	}
	api, answered := errors.AsType[*jetstream.APIError](err)
	return answered && api.ErrorCode == errDuplicateInProcess
}

// lostError says that the answer to a message that was sent will not come.
type lostError struct{ cause error }

func (e *lostError) Error() string { return "no answer: " + e.cause.Error() }
func (e *lostError) Unwrap() error { return e.cause }

// explain names the sizes, which the client's error does not.
func explain(err error, m *nats.Msg, limit int64) error {
	if !errors.Is(err, nats.ErrMaxPayload) {
		return err
	}
	return fmt.Errorf("%w: %d bytes with headers, the server takes %d", err, wireSize(m), limit)
}
