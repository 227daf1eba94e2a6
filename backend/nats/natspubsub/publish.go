package natspubsub

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/pubsub"
)

const (
	// window is the number of messages that one call has in flight, below what makes a server push back (10,000).
	window = 512
	// maxInFlight bounds all calls together.
	maxInFlight = 8192
	// errDuplicateInProcess is the server's answer, from a cluster, to a message whose twin is being stored.
	errDuplicateInProcess = 10158
)

// noRetry: the client's own repetition would let later messages of a key overtake.
var noRetry = []jetstream.PublishOpt{jetstream.WithRetryAttempts(0)}

// Publish sends the messages, many in flight at a time, and waits for the server's answer to each. An entry of the
// result that wraps pubsub.ErrInDoubt was sent and not answered; any other was not accepted. Messages of one key are
// stored in the order of the call. An ID that the stream has seen in its duplicate window, two minutes by default, is
// accepted and not stored again.
func (d *Driver) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.PublishTimeout)
	defer cancel()
	b := batch{driver: d, msgs: msgs, errs: make([]error, len(msgs)), futures: make([]jetstream.PubAckFuture, len(msgs))}
	for i := range msgs {
		if i >= window {
			b.await(ctx, i-window)
		}
		b.send(ctx, i)
	}
	for i := max(0, len(msgs)-window); i < len(msgs); i++ {
		b.await(ctx, i)
	}
	if !b.failed {
		return nil
	}
	return b.errs
}

// batch is one call of Publish.
type batch struct {
	driver  *Driver
	msgs    []pubsub.Message
	errs    []error
	futures []jetstream.PubAckFuture
	failed  bool
}

// send puts message i on its way, unless it can be refused here.
func (b *batch) send(ctx context.Context, i int) {
	d, m := b.driver, &b.msgs[i]
	err := ctx.Err()
	if d.closed.Load() {
		err = pubsub.ErrClosed
	}
	if err == nil {
		err = d.ensureStream(ctx, m.Topic)
	}
	if err == nil {
		nm := d.cfg.encode(m)
		if size, limit := wireSize(nm), int(d.conn.MaxPayload()); limit > 0 && size > limit {
			err = fmt.Errorf("%w: %d bytes with headers, the server takes %d", nats.ErrMaxPayload, size, limit)
		} else {
			b.futures[i], err = d.js.PublishMsgAsync(nm, noRetry...)
		}
	}
	if err != nil {
		b.refuse(i, err)
	}
}

// await takes the answer to message i.
func (b *batch) await(ctx context.Context, i int) {
	f := b.futures[i]
	if f == nil {
		return
	}
	b.futures[i] = nil
	select {
	case ack := <-f.Ok():
		b.accept(ack)
	case err := <-f.Err():
		b.judge(i, err)
	case <-ctx.Done():
		b.doubt(i, ctx.Err())
	}
}

func (b *batch) accept(ack *jetstream.PubAck) {
	b.driver.counts.published.Add(1)
	if ack.Duplicate {
		b.driver.counts.duplicates.Add(1)
	}
}

// judge tells an answer from the lack of one.
func (b *batch) judge(i int, err error) {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		b.driver.topics.Delete(b.msgs[i].Topic) // the stream is gone, or has no leader: look again next time
		b.refuse(i, err)
	case errors.As(err, &api) && api.ErrorCode != errDuplicateInProcess:
		b.refuse(i, err)
	default:
		b.doubt(i, err)
	}
}

func (b *batch) refuse(i int, err error) {
	b.driver.counts.refused.Add(1)
	b.failed = true
	b.errs[i] = fmt.Errorf("natspubsub %q: topic %s: %w", b.driver.cfg.Name, b.msgs[i].Topic, err)
}

func (b *batch) doubt(i int, err error) {
	b.driver.counts.inDoubt.Add(1)
	b.failed = true
	b.errs[i] = fmt.Errorf("natspubsub %q: topic %s: %w: %w", b.driver.cfg.Name, b.msgs[i].Topic, pubsub.ErrInDoubt, err)
}
