package postgres_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// deadRows is how many the case of bloat has.
func deadRows() int {
	if os.Getenv("BACKSTAY_LONG") == "1" {
		return 1_000_000
	}
	return 200_000
}

// holdSnapshot opens a transaction that sees the database as it is now, so that nothing deleted from here on can be vacuumed.
func holdSnapshot(t testing.TB, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	_, err = conn.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")
	require.NoError(t, err)
}

// addDead stores rows and deletes them.
func addDead(t testing.TB, pool *pgxpool.Pool, n int) {
	t.Helper()
	_, err := pool.Exec(t.Context(), "INSERT INTO backstay_outbox (lane, id, topic, msg_key, header, payload, sent_at) "+
		"SELECT n, n, 't', n, '', repeat('x', 100)::bytea, 0 FROM generate_series(1, $1::bigint) AS n", n)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), "DELETE FROM backstay_outbox")
	require.NoError(t, err)
}

// dequeue stores 100 messages, then fetches and settles them, and tells how long the latter took.
func dequeue(t testing.TB, s *pgoutbox.Store, l outbox.Leases) time.Duration {
	t.Helper()
	msgs := make([]pubsub.Message, 100)
	for i := range msgs {
		msgs[i] = pubsub.Message{Topic: "t", Key: fmt.Sprint(i), Payload: make([]byte, 100)}
	}
	store(t, outbox.New(s, outbox.Config{}), msgs...)
	began := time.Now()
	records, err := s.Fetch(t.Context(), l, len(msgs))
	require.NoError(t, err)
	require.Len(t, records, len(msgs))
	require.NoError(t, s.Settle(t.Context(), l, records, nil))
	return time.Since(began)
}

// Many rows are dead and kept by a snapshot that somebody holds, beside a transaction that stays open in another database: a hundred
// messages are fetched and settled about as fast as from a clean table.
func TestF14_DeadRowsUnderAHeldSnapshot(t *testing.T) {
	s, pool, url := newDatabase(t, pgoutbox.Config{})
	l, err := s.Lease(t.Context(), "a", 10*time.Minute)
	require.NoError(t, err)
	measure := func() time.Duration { // the best of several: what others do on this machine only ever adds
		best := time.Hour
		for range 15 {
			best = min(best, dequeue(t, s, l))
		}
		return best
	}
	measure()
	clean := measure()
	holdSnapshot(t, url)
	addDead(t, pool, deadRows())
	unmarked, err := pgoutbox.New(pool, pgoutbox.Config{Rescan: -1})
	require.NoError(t, err)
	without := dequeue(t, unmarked, l)
	var dead time.Duration
	for began := time.Now(); time.Since(began) < pgtest.Patience; { // the mark is raised when fetches come
		dead = measure()
		if dead < 2*clean {
			break
		}
	}
	t.Logf("clean %v; under %d dead rows %v, without the mark %v", clean, deadRows(), dead, without)
	require.Less(t, dead, 2*clean)
	require.Greater(t, without, 2*clean, "the dead rows are there")
}
