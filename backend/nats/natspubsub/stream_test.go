package natspubsub_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// The server removes the folder of an account with its last stream, and may then fail to make another.
func TestATopicCanBeMadeWhileTheLastStreamIsDeleted(t *testing.T) {
	t.Parallel()
	conn := inProcess(t).connect(t)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	topics, ctx := []string{"even", "odd"}, soon(t)
	for round := range 300 {
		made, gone := topics[round%2], topics[(round+1)%2]
		d := newDriver(t, conn, natspubsub.Config{Prefix: "churn", Lanes: 1})
		var both errgroup.Group
		both.Go(func() error {
			if errs := d.Publish(ctx, []pubsub.Message{{ID: "1", Topic: made}}); errs != nil {
				return errs[0]
			}
			return nil
		})
		if round > 0 {
			both.Go(func() error { return js.DeleteStream(ctx, "churn~"+gone) })
		}
		require.NoError(t, both.Wait(), "round %d", round)
	}
}
