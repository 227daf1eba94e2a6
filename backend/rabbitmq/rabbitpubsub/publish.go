package rabbitpubsub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

var (
	// ErrUnroutable is wrapped by the error of a message whose topic has no group: the broker has dropped it. See
	// Config.Unroutable.
	ErrUnroutable = errors.New("rabbitpubsub: no group of the topic takes it")
	// ErrRejected is wrapped by the error of a message that a queue has refused, which the broker does when the queue is
	// full (see Config.MaxLength) or unavailable. It is in doubt as well, since other groups of the topic may have it.
	ErrRejected = errors.New("rabbitpubsub: rejected by a queue of the topic that is full or unavailable")
	// ErrBlocked is wrapped by the error of a message that was not sent since the broker takes none: its memory or disk
	// alarm is on.
	ErrBlocked = errors.New("rabbitpubsub: blocked by the broker")
)

// Publish sends the messages, up to Config.Window in flight at a time, and waits for the broker to confirm each. An
// entry of the result that wraps pubsub.ErrInDoubt was sent and not answered, or rejected by one of several queues; any
// other was not accepted. Messages of one key are stored in the order of the call. It returns after
// Config.PublishTimeout at the latest, whatever the connection does.
func (d *Driver) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	if len(msgs) == 0 {
		return nil
	}
	limited := &limit{Context: ctx, at: time.Now().Add(d.cfg.PublishTimeout)}
	defer limited.stop()
	c := newCall(msgs)
	sent, err := d.publisher.send(limited, c)
	if err == nil {
		select {
		case <-c.done:
		case <-ctx.Done():
			err = ctx.Err()
		case <-limited.expired():
			err = errPublishTimeout
		}
	}
	return d.report(msgs, c.finish(sent, d.unblocked(err)))
}

// unblocked says of an error of a call that ran out of time that the broker was the reason, if it was.
func (d *Driver) unblocked(err error) error {
	if err == nil {
		return nil
	}
	if s := d.publisher.session(); s != nil && !errors.Is(err, ErrBlocked) {
		if b := s.blocked.Load(); b != nil {
			return fmt.Errorf("%w (%s): %w", ErrBlocked, b.reason, err)
		}
	}
	return err
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
		case errors.Is(err, pubsub.ErrInDoubt):
			d.counts.inDoubt.Add(1)
		default:
			d.counts.refused.Add(1)
		}
		errs[i] = fmt.Errorf("rabbitpubsub %q: topic %s: %w", d.cfg.Name, msgs[i].Topic, err)
	}
	return errs
}

var errPublishTimeout = fmt.Errorf("the publish timeout is over: %w", context.DeadlineExceeded)

// limit is a context with a deadline whose timer runs only once somebody waits for it. It is for one goroutine, except
// for a Context made by as.
type limit struct {
	context.Context
	at    time.Time
	timer *time.Timer
}

func (l *limit) expired() <-chan time.Time {
	if l.timer == nil {
		l.timer = time.NewTimer(time.Until(l.at))
	}
	return l.timer.C
}

func (l *limit) stop() {
	if l.timer != nil {
		l.timer.Stop()
	}
}

// as is the same as an ordinary context, for what is rare.
func (l *limit) as() (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(l.Context, l.at, errPublishTimeout)
}
