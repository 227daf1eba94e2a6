package test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
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
