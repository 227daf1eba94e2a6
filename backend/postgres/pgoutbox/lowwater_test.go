package pgoutbox_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// marked is a store whose every fetch moves the low-water mark, with all leases.
func marked(t *testing.T) (*pgoutbox.Store, outbox.Leases, *outbox.Outbox[pgx.Tx]) {
	t.Helper()
	s, _, _ := newDatabase(t, pgoutbox.Config{Rescan: time.Hour})
	pgoutbox.LookEvery(s, 0)
	l, err := s.Lease(t.Context(), "a", time.Hour)
	require.NoError(t, err)
	return s, l, outbox.New(s, outbox.Config{})
}

// drain fetches and settles everything, and goes on looking a little.
func drain(t *testing.T, s *pgoutbox.Store, l outbox.Leases) (last int64) {
	t.Helper()
	for range 8 {
		records, err := s.Fetch(t.Context(), l, 100)
		require.NoError(t, err)
		require.NoError(t, s.Settle(t.Context(), l, records, nil))
		for _, r := range records {
			last = r.Seq
		}
	}
	return last
}

func message(key string) pubsub.Message { return pubsub.Message{Topic: "t", Key: key} }

// The mark does not pass over a transaction that has drawn a number and not yet ended, and does not wait for others.
func TestLowWaterMarkWaitsForWriters(t *testing.T) {
	t.Parallel()
	s, l, ob := marked(t)
	foreign, err := pgx.Connect(t.Context(), pgtest.Database(t)) // has a transaction ID, in another database
	require.NoError(t, err)
	defer func() { _ = foreign.Close(context.Background()) }()
	_, err = foreign.Exec(t.Context(), "BEGIN; CREATE TABLE of_mine (x int)")
	require.NoError(t, err)

	store(t, ob, message("a"))
	before := drain(t, s, l)
	require.Equal(t, before, pgoutbox.LowWater(s))
	require.NoError(t, ob.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		if err := ob.Publish(ctx, tx, message("late")); err != nil {
			return err
		}
		for range 5 {
			store(t, ob, message("b"))
		}
		drain(t, s, l)
		require.Equal(t, before, pgoutbox.LowWater(s), "a number above it is not committed yet")
		return nil
	}))
	records, err := s.Fetch(t.Context(), l, 100)
	require.NoError(t, err)
	require.Len(t, records, 1)
	require.Equal(t, "late", records[0].Message.Key)
	drain(t, s, l)
	require.Equal(t, before+6, pgoutbox.LowWater(s))
}

// What waits, parked or delayed, is not passed over, whoever relays it.
func TestLowWaterMarkWaitsForHeldMessages(t *testing.T) {
	t.Parallel()
	s, l, ob := marked(t)
	store(t, ob, message("a"), message("b"), message("a"))
	records, err := s.Fetch(t.Context(), l, 100)
	require.NoError(t, err)
	failure := outbox.Failure{Record: records[0], Err: errors.New("refused"), Parked: true}
	require.NoError(t, s.Settle(t.Context(), l, records[1:2], []outbox.Failure{failure}))
	drain(t, s, l)
	require.Equal(t, records[0].Seq-1, pgoutbox.LowWater(s))
	store(t, ob, message("a"))
	n, err := s.Skip(t.Context(), records[0].Seq)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, records[2].Seq+1, drain(t, s, l))
	require.Equal(t, records[2].Seq+1, pgoutbox.LowWater(s))
}

// A sequence that was set back, as by the restore of an older dump, hides nothing.
func TestLowWaterMarkFollowsTheSequenceBack(t *testing.T) {
	t.Parallel()
	s, pool, _ := newDatabase(t, pgoutbox.Config{Rescan: time.Hour})
	pgoutbox.LookEvery(s, 0)
	l, err := s.Lease(t.Context(), "a", time.Hour)
	require.NoError(t, err)
	ob := outbox.New(s, outbox.Config{})
	store(t, ob, message("a"), message("a"), message("a"))
	require.Equal(t, drain(t, s, l), pgoutbox.LowWater(s))
	_, err = pool.Exec(t.Context(), "ALTER TABLE backstay_outbox ALTER COLUMN seq RESTART WITH 1")
	require.NoError(t, err)
	store(t, ob, message("again"))
	require.EqualValues(t, 1, drain(t, s, l))
}
