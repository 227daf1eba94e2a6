package kafkapubsub_test

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/pubsubtest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	foreign := client(t, c)
	pubsubtest.Run(t, pubsubtest.Harness{
		New: func(t *testing.T) pubsub.Driver {
			return newDriver(t, c, kafkapubsub.Config{Partitions: 4})
		},
		Reopen: func(t *testing.T, d pubsub.Driver) pubsub.Driver {
			_, _, cfg := d.(*kafkapubsub.Driver).Describe()
			return newDriver(t, c, cfg.(kafkapubsub.Config))
		},
		Foreign: func(ctx context.Context, d pubsub.Driver, topic string, header map[string][]string, payload []byte) error {
			_, _, cfg := d.(*kafkapubsub.Driver).Describe()
			rec := &kgo.Record{Topic: cfg.(kafkapubsub.Config).Prefix + topic, Value: payload}
			for name, values := range header {
				for _, value := range values {
					rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
				}
			}
			return foreign.ProduceSync(ctx, rec).FirstErr()
		},
		Parallel: 8,
		Skip: map[string]string{
			"OddTopicsAndGroups": "Kafka refuses topics whose names differ in '.' and '_' only; TestOddNames tries the others",
		},
	})
}
