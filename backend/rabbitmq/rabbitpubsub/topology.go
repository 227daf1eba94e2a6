package rabbitpubsub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/backstay-go/backstay/pubsub"
)

// ErrMismatch is wrapped by errors about an exchange or queue that exists and differs from what Config says: another
// number of lanes, a group that is ordered here and unordered there, another MaxLength.
var ErrMismatch = errors.New("rabbitpubsub: mismatch")

// ErrMissing is wrapped by errors about an exchange or queue that should exist, with Config.Topology "check" or "trust",
// or that was deleted while it was consumed.
var ErrMissing = errors.New("rabbitpubsub: missing")

const (
	// noDeliveryLimit is the x-delivery-limit of every queue: the portable type counts attempts, and the broker must not
	// drop what it has delivered often, as it does by default since version 4.0. A limit there must be, since without
	// one the broker puts what is given back at the end of the queue, and order is lost.
	noDeliveryLimit = 1_000_000_000
	// temporaryExpires is when the broker removes the queue of a temporary group that nobody consumes.
	temporaryExpires = 60_000 // milliseconds
)

// declarer makes or checks exchanges and queues, on a channel that one error of the broker ends.
type declarer struct {
	cfg Config
	ch  *amqp.Channel
}

// declare calls make on a channel of its own.
func (d *Driver) declare(ctx context.Context, s *session, do func(declarer) error) error {
	if d.cfg.Topology == "trust" {
		return nil
	}
	return d.onChannel(ctx, s, func(ch *amqp.Channel) error { return do(declarer{d.cfg, ch}) })
}

// onChannel calls do on a channel of its own, and leaves it behind when ctx ends.
func (d *Driver) onChannel(ctx context.Context, s *session, do func(*amqp.Channel) error) error {
	err := awaitDone(ctx, func() error {
		ch, err := s.conn.Channel()
		if err != nil {
			return err
		}
		err = do(ch)
		if cerr := ch.Close(); err == nil {
			err = cerr
		}
		return err
	})
	return explain(err)
}

// explain gives an error of the broker the sentinel that belongs to it.
func explain(err error) error {
	broker, ok := errors.AsType[*amqp.Error](err)
	switch {
	case !ok:
		return err
	case broker.Code == amqp.PreconditionFailed && strings.Contains(broker.Reason, "inequivalent"):
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	case broker.Code == amqp.NotFound:
		return fmt.Errorf("%w: %w", ErrMissing, err)
	}
	return err
}

func (c declarer) checkOnly() bool { return c.cfg.Topology == "check" }

// topic makes the exchange that messages are published to, and the one that takes what no group does.
func (c declarer) topic(name string) error {
	unrouted, args := c.cfg.unrouted(name), amqp.Table{"alternate-exchange": c.cfg.unrouted(name)}
	if c.checkOnly() {
		return c.ch.ExchangeDeclarePassive(c.cfg.exchange(name), "topic", true, false, false, false, args)
	}
	if err := c.ch.ExchangeDeclare(unrouted, "fanout", true, false, false, false, nil); err != nil {
		return err
	}
	return c.ch.ExchangeDeclare(c.cfg.exchange(name), "topic", true, false, false, false, args)
}

// deadLetters makes the topic of a group's dead letters, and the queue that keeps them while it has no group.
func (c declarer) deadLetters(topic string) error {
	if err := c.topic(topic); err != nil {
		return err
	}
	kept := c.cfg.kept(topic)
	if err := c.queue(kept, c.quorum()); err != nil || c.checkOnly() {
		return err
	}
	return c.ch.QueueBind(kept, "", c.cfg.unrouted(topic), false, nil)
}

// group makes what a subscription needs but its bindings. The exchange is there.
func (c declarer) group(s pubsub.Subscription) error {
	for _, name := range queuesOf(c.cfg, s) {
		args := c.quorum()
		if s.Temporary {
			args = c.classic()
		}
		if s.Ordered {
			args["x-single-active-consumer"] = true
		}
		if err := c.queue(name, args); err != nil {
			return err
		}
	}
	return nil
}

// bind has the exchange send the group its messages.
func (c declarer) bind(s pubsub.Subscription) error {
	if c.checkOnly() {
		return nil
	}
	for lane, name := range queuesOf(c.cfg, s) {
		key := "#"
		if s.Ordered {
			key = strconv.Itoa(lane)
		}
		if err := c.ch.QueueBind(name, key, c.cfg.exchange(s.Topic), false, nil); err != nil {
			return err
		}
	}
	return nil
}

func (c declarer) queue(name string, args amqp.Table) error {
	var err error
	if c.checkOnly() {
		_, err = c.ch.QueueDeclarePassive(name, true, false, false, false, args)
	} else {
		_, err = c.ch.QueueDeclare(name, true, false, false, false, args)
	}
	return err
}

// quorum are the arguments of a replicated queue.
func (c declarer) quorum() amqp.Table {
	args := amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": int64(noDeliveryLimit)}
	if c.cfg.Replicas > 0 {
		args["x-quorum-initial-group-size"] = int64(c.cfg.Replicas)
	}
	return c.bounded(args)
}

// classic are the arguments of the queue of a temporary group, which a quorum queue cannot be.
func (c declarer) classic() amqp.Table {
	return c.bounded(amqp.Table{"x-queue-type": "classic", "x-expires": int64(temporaryExpires)})
}

func (c declarer) bounded(args amqp.Table) amqp.Table {
	if c.cfg.MaxLength > 0 {
		args["x-max-length"], args["x-overflow"] = int64(c.cfg.MaxLength), "reject-publish"
	}
	return args
}

// queuesOf are the queues of a subscription, by lane.
func queuesOf(c Config, s pubsub.Subscription) []string {
	if !s.Ordered {
		return []string{c.queue(s.Topic, s.Group, 0)}
	}
	names := make([]string, c.Lanes)
	for lane := range names {
		names[lane] = c.queue(s.Topic, s.Group, lane)
	}
	return names
}

// subscribe makes the subscription stand.
func (d *Driver) subscribe(ctx context.Context, sess *session, s pubsub.Subscription) error {
	err := d.declare(ctx, sess, func(c declarer) error {
		if !s.Temporary {
			if err := c.deadLetters(pubsub.DeadLetterTopic(s.Topic, s.Group)); err != nil {
				return err
			}
		}
		if err := c.topic(s.Topic); err != nil {
			return err
		}
		return c.group(s)
	})
	if err != nil {
		return err
	}
	if d.cfg.Topology == "declare" && strings.Contains(s.Topic, ".dead.") {
		if err := d.adopt(ctx, sess, s); err != nil { // those that are older than what the bindings will bring
			return err
		}
		defer func() { _ = d.adopt(ctx, sess, s) }() // and those of the meantime
	}
	return d.declare(ctx, sess, func(c declarer) error { return c.bind(s) })
}

// adopt moves dead letters that nobody has read to the first group that reads them. A letter is taken from where it was
// kept once the queue of the group has it.
func (d *Driver) adopt(ctx context.Context, sess *session, s pubsub.Subscription) error {
	err := d.onChannel(ctx, sess, func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		kept := d.cfg.kept(s.Topic)
		for ctx.Err() == nil {
			letter, ok, err := ch.Get(kept, false)
			if err != nil || !ok {
				return err
			}
			if err := d.hand(ctx, ch, letter, s); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if errors.Is(err, ErrMissing) { // none are kept
		return nil
	}
	return err
}

func (d *Driver) hand(ctx context.Context, ch *amqp.Channel, letter amqp.Delivery, s pubsub.Subscription) error {
	lane := 0
	if s.Ordered {
		lane, _ = strconv.Atoi(letter.RoutingKey)
		lane = min(max(lane, 0), d.cfg.Lanes-1)
	}
	delete(letter.Headers, headerDeliveries)
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", d.cfg.queue(s.Topic, s.Group, lane), true, false, amqp.Publishing{
		Headers: letter.Headers, ContentType: letter.ContentType, ContentEncoding: letter.ContentEncoding,
		DeliveryMode: amqp.Persistent, MessageId: letter.MessageId, Timestamp: letter.Timestamp, Type: letter.Type, Body: letter.Body,
	})
	if err != nil {
		return err
	}
	switch acked, err := confirm.WaitContext(ctx); {
	case err != nil:
		return err
	case !acked:
		return ErrRejected
	}
	return letter.Ack(false)
}

// remove ends a temporary group, unless another member has it.
func (d *Driver) remove(ctx context.Context, sess *session, s pubsub.Subscription) {
	for _, name := range queuesOf(d.cfg, s) {
		_ = d.onChannel(ctx, sess, func(ch *amqp.Channel) error {
			_, err := ch.QueueDelete(name, true, false, false)
			return err
		})
	}
}
