package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// open is all that depends on the broker. It waits for one that is away, but not for long.
func open(ctx context.Context, url, prefix string) (pubsub.Driver, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	switch scheme, _, _ := strings.Cut(url, ":"); scheme {
	case "mem":
		return mempubsub.New(mempubsub.Config{}), nil
	case "nats", "tls":
		return natspubsub.Open(ctx, url, natspubsub.Config{Prefix: prefix})
	case "amqp", "amqps":
		return rabbitpubsub.Open(ctx, url, rabbitpubsub.Config{Prefix: prefix})
	case "redis", "rediss":
		return redispubsub.Open(ctx, url, redispubsub.Config{Prefix: prefix})
	case "kafka":
		return kafkapubsub.Open(ctx, url, kafkapubsub.Config{Prefix: prefix + ".", Partitions: 4})
	default:
		return nil, fmt.Errorf("no broker for %q: it is mem:, nats://…, amqp://…, redis://… or kafka://…", scheme)
	}
}
