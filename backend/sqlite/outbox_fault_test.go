package sqlite_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/pubsub"
)

// A stored header that cannot be read stops its key and no other: the message is parked with its error, and a person mends it.
func TestOutboxUnreadableHeaderIsParked(t *testing.T) {
	s, db := newOutbox(t)
	ob := outbox.New(s, outbox.Config{})
	require.NoError(t, ob.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		return ob.Publish(ctx, tx, pubsub.Message{ID: "a1", Topic: "t", Key: "a"}, pubsub.Message{ID: "a2", Topic: "t", Key: "a"},
			pubsub.Message{ID: "a3", Topic: "t", Key: "a"}, pubsub.Message{ID: "b1", Topic: "t", Key: "b"})
	}))
	_, err := db.ExecContext(t.Context(), `UPDATE backstay_outbox SET header = '{"torn' WHERE id = 'a2'`)
	require.NoError(t, err)
	parked := make(chan outbox.Failure, 1)
	var p outboxtest.Publisher
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	r := outbox.NewRelay(s, &p, outbox.RelayConfig{PollMax: 10 * time.Millisecond}, outbox.OnFailure(func(f outbox.Failure) { parked <- f }))
	go func() { ended <- r.Run(ctx) }()
	require.NoError(t, p.Wait(ctx, func(taken []pubsub.Message, _ int) bool { return len(taken) == 2 }))
	f := <-parked
	require.True(t, f.Parked)
	require.ErrorContains(t, f.Err, "header cannot be read")

	list, err := s.Parked(ctx, 0, 10)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "a2", list[0].Record.Message.ID)
	require.Error(t, list[0].Record.Fault)
	require.Contains(t, list[0].Reason, "header cannot be read")
	n, err := s.Edit(ctx, list[0].Record.Seq, list[0].Record.Message)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	_, err = s.Requeue(ctx, list[0].Record.Seq)
	require.NoError(t, err)
	require.NoError(t, p.Wait(ctx, func(taken []pubsub.Message, _ int) bool { return len(taken) == 4 }))
	cancel()
	require.NoError(t, <-ended)
	require.Equal(t, "a2", p.Messages()[2].ID)
	require.Equal(t, "a3", p.Messages()[3].ID)
}
