package postgres_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
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

func newSQL(t testing.TB, db *sql.DB) *sqloutbox.Store {
	t.Helper()
	s, err := sqloutbox.New(db, sqloutbox.PostgreSQL(), sqloutbox.Config{})
	require.NoError(t, err)
	return s
}

// newStore is a store with its tables on pool.
func newStore(t testing.TB, pool *pgxpool.Pool, cfg pgoutbox.Config) *pgoutbox.Store {
	t.Helper()
	s, err := pgoutbox.New(pool, cfg)
	require.NoError(t, err)
	require.NoError(t, s.Migrate(t.Context()))
	return s
}

// newDatabase is a store in a database of its own.
func newDatabase(t testing.TB, cfg pgoutbox.Config) (*pgoutbox.Store, *pgxpool.Pool, string) {
	t.Helper()
	url := pgtest.Database(t)
	pool := pgtest.Pool(t, url)
	return newStore(t, pool, cfg), pool, url
}

// store stores messages in a transaction of their own.
func store(t testing.TB, ob *outbox.Outbox[pgx.Tx], msgs ...pubsub.Message) {
	t.Helper()
	require.NoError(t, ob.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return ob.Publish(ctx, tx, msgs...) }))
}
