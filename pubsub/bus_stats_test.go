package pubsub_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

func TestABusCountsWhatItPublishes(t *testing.T) {
	d := newScripted(pubsub.Capabilities{Driver: "scripted", Durability: "none"})
	bus := pubsub.New(d, pubsub.WithPublishTimeout(-1))
	m := pubsub.Message{Topic: "t"}
	d.publish = func(m []pubsub.Message) []error { return make([]error, len(m)) }
	require.NoError(t, bus.Publish(t.Context(), m, m))
	d.publish = func([]pubsub.Message) []error {
		return []error{nil, errBoom, fmt.Errorf("lost: %w", pubsub.ErrInDoubt)}
	}
	require.Error(t, bus.Publish(t.Context(), m, m, m))
	require.Error(t, bus.Publish(t.Context(), m, pubsub.Message{Topic: "no topic"}), "refused whole")
	require.Equal(t, pubsub.BusStats{Published: 3, Failed: 4, InDoubt: 1}, bus.Stats())
	require.Equal(t, map[string]float64{"published_total": 3, "publish_failed_total": 4, "in_doubt_total": 1, "consumers": 0},
		maps.Collect(bus.Metrics()))
	kind, name, config := bus.Describe()
	require.Equal(t, "pubsub.bus scripted", kind+" "+name)
	require.Equal(t, "{scripted none off}", fmt.Sprint(config))
}
