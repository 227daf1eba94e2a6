package rabbitpubsub

import (
	"context"
	"errors"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/backstay-go/backstay/pubsub"
)

// Lag implements pubsub.Lagger. The broker tells how many messages are ready, and not how many members have: what is
// unsettled is not counted.
func (r *receiver) Lag(ctx context.Context) (pubsub.Lag, error) {
	lag := pubsub.Lag{Unsettled: -1}
	sess, err := r.link.get(ctx)
	if err == nil {
		err = r.d.onChannel(ctx, sess, func(ch *amqp.Channel) error {
			lag.Waiting = 0
			for _, name := range queuesOf(r.d.cfg, r.sub) {
				q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
				if err != nil {
					return err
				}
				lag.Waiting += int64(q.Messages)
			}
			return nil
		})
	}
	if err != nil {
		return pubsub.Lag{}, r.d.wrap("topic "+r.sub.Topic+": group "+r.sub.Group, err)
	}
	return lag, nil
}

// Responders returns the number of members of the group that are consuming now. It makes a channel for the question, which
// takes three round trips, and blocks until ctx is done at most. A member takes part from its first Receive on, and not
// while it has lost its connection. Of an ordered group some versions of the broker do not count the members that stand by for
// the lane which is asked about: then it is one, however many there are.
func (d *Driver) Responders(ctx context.Context, topic, group string) (int, error) {
	if d.closed.Load() {
		return 0, pubsub.ErrClosed
	}
	n := 0
	sess, err := d.publisher.link.get(ctx)
	if err == nil {
		err = d.onChannel(ctx, sess, func(ch *amqp.Channel) error {
			// All members of an ordered group consume every lane, so the first tells whether there are any.
			q, err := ch.QueueDeclarePassive(d.cfg.queue(topic, group, 0), true, false, false, false, nil)
			n = q.Consumers
			return err
		})
	}
	switch {
	case errors.Is(err, ErrMissing): // there is no such group
		return 0, nil
	case err != nil:
		return 0, d.wrap("topic "+topic+": group "+group, err)
	}
	return n, nil
}
