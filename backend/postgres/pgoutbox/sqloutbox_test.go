package pgoutbox_test

import (
	"database/sql"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
)

// openSQL opens url through database/sql.
func openSQL(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	db.SetMaxOpenConns(16) // the server is shared
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func newSQL(t testing.TB, db *sql.DB, prefix string) *sqloutbox.Store {
	t.Helper()
	s, err := sqloutbox.New(db, sqloutbox.PostgreSQL(), sqloutbox.Config{Prefix: prefix})
	require.NoError(t, err)
	return s
}

func TestSQLConformance(t *testing.T) {
	t.Parallel()
	var tables pgtest.Tables
	outboxtest.Run(t, outboxtest.Harness[*sql.Tx]{
		ConcurrentTx: true,
		New: func(c *testing.T) outboxtest.Store[*sql.Tx] {
			url, prefix := tables.Next(t)
			s := newSQL(c, openSQL(c, url), prefix)
			require.NoError(c, s.Migrate(c.Context()))
			return s
		},
	})
}

func TestSQLMigrateIsIdempotentAndConcurrent(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	var wg sync.WaitGroup
	for range 8 {
		db := openSQL(t, url)
		wg.Go(func() {
			s, err := sqloutbox.New(db, sqloutbox.PostgreSQL(), sqloutbox.Config{})
			for range 3 {
				if err == nil {
					err = s.Migrate(t.Context())
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, newSQL(t, openSQL(t, url), "").Verify(t.Context()))
}

func TestSQLVerifySaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	db := openSQL(t, pgtest.Database(t))
	s := newSQL(t, db, "Mine_")
	err := s.Verify(t.Context())
	for _, table := range []string{"outbox", "outbox_holds", "outbox_leases", "outbox_relays", "inbox"} {
		require.ErrorContains(t, err, "sqloutbox: table Mine_"+table+": ")
	}
	_, err = db.ExecContext(t.Context(), s.Schema())
	require.NoError(t, err, "the schema is plain SQL")
	require.NoError(t, s.Verify(t.Context()))
	_, err = db.ExecContext(t.Context(), "DELETE FROM Mine_outbox_schema WHERE version = 1")
	require.NoError(t, err)
	require.ErrorContains(t, s.Verify(t.Context()), "migration 1 (outbox and inbox) is missing from table Mine_outbox_schema")
	require.NoError(t, s.Migrate(t.Context()))
	require.NoError(t, s.Verify(t.Context()))
	_, err = db.ExecContext(t.Context(), "ALTER TABLE Mine_outbox DROP COLUMN header")
	require.NoError(t, err)
	require.ErrorContains(t, s.Verify(t.Context()), "Mine_outbox: ")
}
