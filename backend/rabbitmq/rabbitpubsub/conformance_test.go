package rabbitpubsub_test

import (
	"context"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/pubsubtest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	url := shared(t)
	pubsubtest.Run(t, pubsubtest.Harness{
		New: func(t *testing.T) pubsub.Driver {
			// What the suite publishes to topics without a group must be accepted, as brokers do that keep topics.
			return newDriver(t, url, rabbitpubsub.Config{Unroutable: "drop", MaxPayload: 1 << 20})
		},
		Reopen: func(t *testing.T, d pubsub.Driver) pubsub.Driver { return newDriver(t, url, d.(*driver).cfg) },
		Foreign: func(ctx context.Context, d pubsub.Driver, topic string, header map[string][]string, payload []byte) error {
			table := amqp.Table{}
			for name, values := range header {
				list := make([]any, len(values))
				for i := range values {
					list[i] = values[i]
				}
				table[name] = list
			}
			return publishRaw(ctx, url, d.(*driver).cfg.Prefix+":"+topic, "any.key", amqp.Publishing{Headers: table, Body: payload})
		},
		Parallel: 8,
	})
}

// publishRaw publishes as another program would.
func publishRaw(ctx context.Context, url, exchange, key string, m amqp.Publishing) error {
	conn, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, true, false, m)
	if err != nil {
		return err
	}
	_, err = confirm.WaitContext(ctx)
	return err
}
