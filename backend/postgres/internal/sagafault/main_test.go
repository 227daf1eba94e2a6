package sagafault_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sagaConfig lets a node be missed soon, but not one that a busy machine holds up.
var sagaConfig = saga.Config{Lease: 3 * time.Second, PollMax: 20 * time.Millisecond}

func openDB(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	db.SetMaxOpenConns(12)
	db.SetMaxIdleConns(12)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// sagaStore opens the sagas in the database at url.
func sagaStore(t testing.TB, url string) (*sqlsaga.Store, *sql.DB) {
	t.Helper()
	db := openDB(t, url)
	store, err := sqlsaga.New(db, sqlsaga.PostgreSQL())
	require.NoError(t, err)
	require.NoError(t, store.Migrate(t.Context()))
	return store, db
}

// newStore makes a database with the tables of sagas in it.
func newStore(t testing.TB) (*sqlsaga.Store, *sql.DB) {
	t.Helper()
	return sagaStore(t, pgtest.Database(t))
}

// node runs a runner on a store until the test ends.
func node(t *testing.T, store saga.Store, cfg saga.Config, parts ...saga.Part) *saga.Runner {
	t.Helper()
	r, stop := startNode(t, store, cfg, parts...)
	t.Cleanup(stop)
	return r
}

// startNode runs a runner until stop is called.
func startNode(t *testing.T, store saga.Store, cfg saga.Config, parts ...saga.Part) (r *saga.Runner, stop func()) {
	t.Helper()
	r, err := saga.NewRunner(store, cfg, parts...)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- r.Run(ctx) }()
	return r, func() { cancel(); require.NoError(t, <-stopped) }
}

// texts reads a query of one column.
func texts(t testing.TB, db *sql.DB, query string, args ...any) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, args...)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	for rows.Next() {
		var text string
		require.NoError(t, rows.Scan(&text))
		all = append(all, text)
	}
	require.NoError(t, rows.Err())
	return all
}

func number(t testing.TB, db *sql.DB, query string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRowContext(t.Context(), query).Scan(&n))
	return n
}
