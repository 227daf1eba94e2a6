package sagafault_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/saga"
)

// reads is what the server has read of the instances so far, as its statistics have it.
type reads struct{ scans, rows int }

func readsOf(t *testing.T, db *sql.DB) (r reads) {
	t.Helper()
	require.NoError(t, db.QueryRowContext(t.Context(), `SELECT seq_scan + idx_scan, seq_tup_read +
		(SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'backstay_sagas')
		FROM pg_stat_user_tables WHERE relname = 'backstay_sagas'`).Scan(&r.scans, &r.rows))
	return r
}

// A claim reads what is due, however much waits.
func TestAClaimDoesNotReadWhatWaits(t *testing.T) { onBoth(t, aClaimDoesNotReadWhatWaits) }

func aClaimDoesNotReadWhatWaits(t *testing.T, on driver) {
	t.Parallel()
	const waiting, due, claims = 100_000, 20, 20
	url := pgtest.Database(t)
	_, db := on.sagaStore(t, url)
	_, err := db.ExecContext(t.Context(), fmt.Sprintf(`INSERT INTO backstay_sagas (id, definition, version, status, direction, step, attempt,
		rejected, doubt, cause, error, state, owner, token, due_ms, created_ms, updated_ms)
		SELECT 'w' || n, 'nap', 1, 'running', 'do', 'nap', 0, 0, 0, '', '', '{}', '', 1,
		extract(epoch FROM now()) * 1000 + CASE WHEN n <= %d THEN 0 ELSE 3600000 END, 0, 0 FROM generate_series(1, %d) AS n`, due, waiting))
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), "VACUUM ANALYZE backstay_sagas")
	require.NoError(t, err)
	before := readsOf(t, db)
	t.Run("claims", func(t *testing.T) { // a connection tells the statistics what it has read, at the latest when it is closed
		store, _ := on.sagaStore(t, url)
		found := 0
		for range claims { // most of them find nothing
			ins, err := store.Claim(t.Context(), saga.Claim{Owner: "node", Known: []saga.Ref{{Name: "nap", Version: 1}}, Limit: 16, Lease: time.Hour})
			require.NoError(t, err)
			found += len(ins)
		}
		require.Equal(t, due, found)
	})
	var after reads
	until(t, "the statistics show the claims", func() bool {
		after = readsOf(t, db)
		return after.scans >= before.scans+claims
	})
	require.Less(t, after.rows-before.rows, waiting/10)
}
