package natspubsub_test

import (
	"testing"

	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/pubsubtest"
)

func TestConformance(t *testing.T) {
	onBrokers(t, func(t *testing.T, b broker) {
		pubsubtest.Run(t, pubsubtest.Harness{
			New: func(t *testing.T) pubsub.Driver {
				return newDriver(t, b.connect(t), natspubsub.Config{})
			},
			Reopen: func(t *testing.T, d pubsub.Driver) pubsub.Driver {
				_, _, cfg := d.(*natspubsub.Driver).Describe()
				return newDriver(t, b.connect(t), cfg.(natspubsub.Config))
			},
			Parallel: 6,
		})
	})
}
