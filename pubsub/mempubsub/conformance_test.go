package mempubsub_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
	"github.com/backstay-go/backstay/pubsub/pubsubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	pubsubtest.Run(t, pubsubtest.Harness{
		New:    func(*testing.T) pubsub.Driver { return mempubsub.New(mempubsub.Config{Retain: 1000}) },
		Reopen: func(_ *testing.T, d pubsub.Driver) pubsub.Driver { return d.(*mempubsub.Driver).Connect() },
		Lease:  300 * time.Millisecond,
		Wait:   10 * time.Second,
	})
}
