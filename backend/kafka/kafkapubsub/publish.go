package kafkapubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/backstay-go/backstay/pubsub"
)

// call is one Publish. What comes after its end changes nothing.
type call struct {
	places []place

	mu       sync.Mutex
	left     int
	errs     []error
	answered []bool
	done     chan struct{}
	ended    bool
}

// place is the context of a record, which says where in the call it stands.
type place struct {
	context.Context
	index int
}

// Publish sends the messages, in batches per partition, and waits until all in-sync replicas have each. An entry of the
// result that wraps pubsub.ErrInDoubt was sent, or may have been, and not answered; any other was not accepted. Messages
// of one key are stored in the order of the call. It returns after Config.PublishTimeout at the latest.
func (d *Driver) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.cfg.PublishTimeout)
	defer cancel()
	c := &call{left: len(msgs), answered: make([]bool, len(msgs)), done: make(chan struct{})}
	if err := d.admit(ctx); err != nil {
		return d.report(msgs, refuseAll(len(msgs), err))
	}
	c.places = make([]place, len(msgs))
	records := d.encode(msgs)
	promise := c.promise
	for i := range msgs {
		if err := d.ensureTopic(ctx, msgs[i].Topic); err != nil {
			c.end(i, &refusedError{err})
			continue
		}
		c.places[i] = place{ctx, i}
		records[i].Context = &c.places[i]
		d.client.Produce(ctx, &records[i], promise)
	}
	return d.report(msgs, c.wait(ctx))
}

func (d *Driver) admit(ctx context.Context) error {
	if d.closed.Load() {
		return pubsub.ErrClosed
	}
	return ctx.Err()
}

func refuseAll(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = &refusedError{err}
	}
	return errs
}

// promise is called for every record, once.
func (c *call) promise(rec *kgo.Record, err error) {
	c.end(rec.Context.(*place).index, err)
}

func (c *call) end(i int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.left--
	c.answered[i] = true
	if err != nil {
		c.fail(i, err)
	}
	if c.left == 0 {
		close(c.done)
	}
}

func (c *call) fail(i int, err error) {
	if c.errs == nil {
		c.errs = make([]error, len(c.answered))
	}
	c.errs[i] = err
}

// lateAnswers is how long Publish waits, once its context is done, for the client to tell what it has not sent.
const lateAnswers = 50 * time.Millisecond

// wait returns the errors, when all records are answered or ctx is done.
func (c *call) wait(ctx context.Context) []error {
	select {
	case <-c.done:
	case <-ctx.Done():
		timer := time.NewTimer(lateAnswers)
		defer timer.Stop()
		select {
		case <-c.done:
		case <-timer.C:
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.left == 0 {
		return c.errs
	}
	for i, answered := range c.answered {
		if !answered {
			c.fail(i, ctx.Err())
		}
	}
	return c.errs
}

// report counts the outcome and gives the errors their context.
func (d *Driver) report(msgs []pubsub.Message, errs []error) []error {
	if errs == nil {
		d.counts.published.Add(uint64(len(msgs)))
		return nil
	}
	for i, err := range errs {
		switch {
		case err == nil:
			d.counts.published.Add(1)
			continue
		case isRefusal(err):
			d.counts.refused.Add(1)
		default:
			d.counts.inDoubt.Add(1)
			err = fmt.Errorf("%w: %w", pubsub.ErrInDoubt, err)
		}
		if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
			d.topics.Delete(msgs[i].Topic) // it is gone: look again next time
		}
		errs[i] = d.errorf(msgs[i].Topic, err)
	}
	return errs
}

// refusedError says that a message was never handed to the client.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// isRefusal reports errors after which no broker has the message. An answer that says so for good is one, whatever was
// tried before it.
func isRefusal(err error) bool {
	if _, ok := errors.AsType[*refusedError](err); ok {
		return true
	}
	for _, refusal := range []error{
		kgo.ErrMaxBuffered, kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidTopicException, kerr.InvalidRecord,
		kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.PolicyViolation, kerr.InvalidRequiredAcks,
		kerr.UnsupportedForMessageFormat, kerr.InvalidTimestamp, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}
