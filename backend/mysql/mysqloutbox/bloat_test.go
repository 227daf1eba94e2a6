package mysqloutbox_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

// dequeue stores 100 messages, then fetches and settles them, and tells how long the latter took.
func dequeue(t testing.TB, s *sqloutbox.Store, l outbox.Leases) time.Duration {
	t.Helper()
	msgs := make([]pubsub.Message, 100)
	for i := range msgs {
		msgs[i] = pubsub.Message{Topic: "t", Key: fmt.Sprint(i), Payload: make([]byte, 100)}
	}
	put(t, s, msgs...)
	began := time.Now()
	records, err := s.Fetch(t.Context(), l, len(msgs))
	require.NoError(t, err)
	require.Len(t, records, len(msgs))
	require.NoError(t, s.Settle(t.Context(), l, records, nil))
	return time.Since(began)
}

// Many rows are deleted and kept by a snapshot that somebody holds: a hundred messages are fetched and settled about as fast as from a
// clean table. The server is a private one, since a held snapshot keeps the deleted rows of everybody.
func TestF14_DeadRowsUnderAHeldSnapshot(t *testing.T) {
	t.Parallel()
	_, db := migrated(t, databaseOn(t, newServer(t).url()))
	config := sqloutbox.Config{Rescan: 200 * time.Millisecond}
	s, err := sqloutbox.New(db, sqloutbox.MySQL(), config)
	require.NoError(t, err)
	config.Rescan = -1
	unmarked, err := sqloutbox.New(db, sqloutbox.MySQL(), config)
	require.NoError(t, err)
	l, err := s.Lease(t.Context(), "a", time.Hour)
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

	snapshot, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	require.NoError(t, err)
	t.Cleanup(func() { _ = snapshot.Rollback() })
	var n int
	require.NoError(t, snapshot.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM backstay_outbox").Scan(&n))
	dead := either(200_000, 1_000_000)
	for from := 0; from < dead; from += 50_000 {
		exec(t, db, "INSERT INTO backstay_outbox (lane, id, topic, msg_key, header, payload, sent_at) "+
			"WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k WHERE n < 500) "+
			"SELECT a.n, a.n, 't', a.n, '', REPEAT('x', 100), 0 FROM k AS a CROSS JOIN k AS b WHERE b.n <= 100")
		exec(t, db, "DELETE FROM backstay_outbox")
	}
	without := dequeue(t, unmarked, l)
	var with time.Duration
	for began := time.Now(); time.Since(began) < patience; { // the mark is raised when fetches come
		if with = measure(); with < 2*clean {
			break
		}
	}
	t.Logf("clean %v; under %d deleted rows %v, without the mark %v", clean, dead, with, without)
	require.Less(t, with, 2*clean)
	require.Greater(t, without, 2*clean, "the deleted rows are there")
}
