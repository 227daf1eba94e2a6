package redispubsub_test

import (
	"context"
	"testing"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/pubsubtest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	url := redistest.SharedURL(t)
	client := dial(t, url)
	pubsubtest.Run(t, pubsubtest.Harness{
		New: func(t *testing.T) pubsub.Driver { return newDriver(t, dial(t, url), redispubsub.Config{}) },
		Reopen: func(t *testing.T, d pubsub.Driver) pubsub.Driver {
			_, _, cfg := d.(*redispubsub.Driver).Describe()
			return newDriver(t, dial(t, url), cfg.(redispubsub.Config))
		},
		Foreign: func(ctx context.Context, d pubsub.Driver, topic string, header map[string][]string, payload []byte) error {
			_, _, cfg := d.(*redispubsub.Driver).Describe()
			lane := "{" + cfg.(redispubsub.Config).Prefix + "." + topic + "}:3"
			add := client.B().Xadd().Key(lane).Id("*").FieldValue().FieldValue("ce-data", rueidis.BinaryString(payload))
			for name, values := range header {
				for _, v := range values {
					add = add.FieldValue(name, v)
				}
			}
			return client.Do(ctx, add.Build()).Error()
		},
		Parallel: 8,
	})
}
