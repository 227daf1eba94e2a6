package rabbitpubsub_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// What is given back is delivered again before what is later: the broker must not put it at the end of the queue.
func TestGivenBackComesFirst(t *testing.T) {
	t.Parallel()
	d := newDriver(t, shared(t), rabbitpubsub.Config{})
	r := open(t, d)
	for i := range 5 {
		publish(t, d, message(fmt.Sprint(i), ""))
	}
	for attempt := 1; attempt < 4; attempt++ {
		got := receive(t, r, 1)
		require.Equal(t, "0", got[0].ID)
		require.Equal(t, attempt, got[0].Attempt)
		settle(t, r, pubsub.Nack, got...)
	}
}

// A Nack begins the lane anew: everything that is not settled comes again, in order, in a new epoch. What is settled does not,
// though the acknowledgement was given after that of a later message, and just before the lane began anew.
func TestGuaranteeNackBeginsTheLaneAnew(t *testing.T) {
	t.Parallel()
	d := newDriver(t, shared(t), rabbitpubsub.Config{})
	r := open(t, d, ordered)
	for i := range 6 {
		publish(t, d, message(fmt.Sprint(i), "k"))
	}
	first := receive(t, r, 6)
	require.Equal(t, []string{"0", "1", "2", "3", "4", "5"}, ids(first))
	settle(t, r, pubsub.Ack, first[2])
	settle(t, r, pubsub.Ack, first[0])
	settle(t, r, pubsub.Nack, first[1])
	settle(t, r, pubsub.Ack, first[3]) // of an epoch that is over
	again := receive(t, r, 4)
	require.Equal(t, []string{"1", "3", "4", "5"}, ids(again))
	for _, got := range again {
		require.Greater(t, got.Epoch, first[0].Epoch)
		require.Equal(t, first[0].Lane, got.Lane)
		require.True(t, first[1].Stale())
		require.False(t, got.Stale())
	}
	settle(t, r, pubsub.Ack, again...)
	require.NoError(t, r.Close())
	last := open(t, d, ordered)
	publish(t, d, message("last", "k"))
	require.Equal(t, "last", receive(t, last, 1)[0].ID)
}
