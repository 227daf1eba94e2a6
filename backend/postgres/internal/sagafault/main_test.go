package sagafault_test

import (
	"context"
	"database/sql"
	"os"
	"slices"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgsaga"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sagaConfig lets a node be missed soon, but not one that a busy machine holds up.
var sagaConfig = saga.Config{Lease: 3 * time.Second, PollMax: 20 * time.Millisecond}

// killConfig is for nodes that do not last: one that a busy machine holds up is as good as killed.
var killConfig = saga.Config{Lease: 2 * time.Second, PollMax: 20 * time.Millisecond}

func openDB(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	db.SetMaxOpenConns(12)
	db.SetMaxIdleConns(12)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// driver is one of the stores that keep sagas in PostgreSQL.
type driver struct {
	name string
	open func(t testing.TB, url string, db *sql.DB) migrator
	// exec runs a statement in the transaction of the step that ctx belongs to.
	exec func(ctx context.Context, query string, args ...any) error
}

type migrator interface {
	saga.TxStore
	Migrate(ctx context.Context) error
}

var drivers = []driver{
	{"database-sql", func(t testing.TB, _ string, db *sql.DB) migrator {
		store, err := sqlsaga.New(db, sqlsaga.PostgreSQL())
		require.NoError(t, err)
		return store
	}, func(ctx context.Context, query string, args ...any) error {
		_, err := sqlsaga.Tx(ctx).ExecContext(ctx, query, args...)
		return err
	}},
	{"pgx", func(t testing.TB, url string, _ *sql.DB) migrator {
		store, err := pgsaga.New(pgtest.Pool(t, url+"&pool_max_conns=8"), pgsaga.Config{})
		require.NoError(t, err)
		return store
	}, func(ctx context.Context, query string, args ...any) error {
		_, err := pgsaga.Tx(ctx).Exec(ctx, query, args...)
		return err
	}},
}

// onBoth runs a test on each of the stores.
func onBoth(t *testing.T, test func(t *testing.T, on driver)) {
	for _, on := range drivers {
		t.Run(on.name, func(t *testing.T) { test(t, on) })
	}
}

// driverVar names the environment variable that tells a child which driver to use.
const driverVar = "BACKSTAY_SAGA_DRIVER"

// childDriver is the driver that a child was told to use.
func childDriver() driver {
	return drivers[slices.IndexFunc(drivers, func(d driver) bool { return d.name == os.Getenv(driverVar) })]
}

// sagaStore opens the sagas in the database at url.
func (on driver) sagaStore(t testing.TB, url string) (migrator, *sql.DB) {
	t.Helper()
	db := openDB(t, url)
	store := on.open(t, url, db)
	require.NoError(t, store.Migrate(t.Context()))
	return store, db
}

// newStore makes a database with the tables of sagas in it.
func (on driver) newStore(t testing.TB) (migrator, *sql.DB) {
	t.Helper()
	return on.sagaStore(t, pgtest.Database(t))
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
