package natspubsub_test

import (
	"testing"

	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/pubsubtest"
)

func TestConformance(t *testing.T) {
	for _, b := range brokers(t) {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			pubsubtest.Run(t, pubsubtest.Harness{
				New: func(t *testing.T) pubsub.Driver {
					conn := b.connect(t)
					return newDriver(t, conn, natspubsub.Config{Prefix: freshPrefix(t, conn)})
				},
				Reopen: func(t *testing.T, d pubsub.Driver) pubsub.Driver {
					conn := b.connect(t)
					_, _, cfg := d.(*natspubsub.Driver).Describe()
					return newDriver(t, conn, cfg.(natspubsub.Config))
				},
			})
		})
	}
}
