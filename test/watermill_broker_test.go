package test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// watermillConnect gives one of the suite's publishers or subscribers a driver of its own for the broker that all share.
type watermillConnect func(t *testing.T) pubsub.Driver

func inMemory(_ *testing.T, v watermillVariant) watermillConnect {
	cfg := mempubsub.Config{MaxPending: 20_000} // the suite publishes up to 10,000 messages before anybody reads
	if v.old {
		cfg.Retain = 20_000
	}
	first := mempubsub.New(cfg)
	return func(*testing.T) pubsub.Driver { return first.Connect() }
}

func onEmbeddedNATS(t *testing.T, _ watermillVariant) watermillConnect {
	server, err := natsembed.Start(natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	return func(t *testing.T) pubsub.Driver {
		driver, err := natspubsub.Open(eventually(t), server.URL(), natspubsub.Config{Prefix: "watermill", Lanes: 4})
		require.NoError(t, err)
		return driver
	}
}

// onSharedRedis has a prefix of its own.
func onSharedRedis(t *testing.T, _ watermillVariant) watermillConnect {
	prefix := ownRedisPrefix(t)
	return func(t *testing.T) pubsub.Driver {
		driver, err := redispubsub.Open(eventually(t), redisURL(), redispubsub.Config{Prefix: prefix, Lanes: 4})
		require.NoError(t, err)
		return driver
	}
}

// onSharedRabbitMQ has a virtual host of its own. Each queue costs the server open files, so there are few lanes. The suite
// publishes to topics that nobody has subscribed to yet.
func onSharedRabbitMQ(t *testing.T, _ watermillVariant) watermillConnect {
	url := ownVhost(t)
	return func(t *testing.T) pubsub.Driver {
		driver, err := rabbitpubsub.Open(eventually(t), url, rabbitpubsub.Config{Lanes: 2, Unroutable: "drop"})
		require.NoError(t, err)
		return driver
	}
}

// onKafka is a cluster in the process of the suite.
func onKafka(t *testing.T, _ watermillVariant) watermillConnect {
	seeds := ownKafka(t)
	return func(t *testing.T) pubsub.Driver {
		driver, err := kafkapubsub.Open(eventually(t), seeds, kafkapubsub.Config{Partitions: 4})
		require.NoError(t, err)
		return driver
	}
}
