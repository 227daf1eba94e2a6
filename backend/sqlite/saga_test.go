package sqlite_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagatest"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

// sagaStore opens a store in the file at path.
func sagaStore(t testing.TB, path string) (*sqlsaga.Store, *sql.DB) {
	t.Helper()
	db, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	store, err := sqlsaga.New(db, sqlsaga.SQLite())
	require.NoError(t, err)
	require.NoError(t, store.Migrate(t.Context()))
	return store, db
}

func TestSagaStoreKeepsTheContract(t *testing.T) {
	sagatest.Run(t, func(t *testing.T) saga.Store {
		store, _ := sagaStore(t, filepath.Join(t.TempDir(), "saga.db"))
		return store
	})
}

// A file that the first version of the package made is brought up to date with the instances in it.
func TestSagaMigrationFromTheFirstVersionKeepsInstances(t *testing.T) {
	path := filepath.Join(t.TempDir(), "saga.db")
	db, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	store, err := sqlsaga.New(db, sqlsaga.SQLite())
	require.NoError(t, err)
	require.ErrorIs(t, store.Verify(t.Context()), sqlsaga.ErrSchema)
	for _, stmt := range store.Schema()[:4] { // it kept no version
		_, err := db.ExecContext(t.Context(), stmt)
		require.NoError(t, err)
	}
	_, err = db.ExecContext(t.Context(), `INSERT INTO backstay_sagas VALUES
		('1', 'case', 1, 'running', 'do', 'b', 0, 0, 0, '', '', '{"Seen":"before"}', '', 1, 1, 1, 1)`)
	require.NoError(t, err)

	var nodes sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 6 {
		nodes.Go(func() {
			if err := store.Migrate(t.Context()); err != nil {
				failed.Store(&err)
			}
		})
	}
	nodes.Wait()
	if err := failed.Load(); err != nil {
		require.NoError(t, *err)
	}
	require.NoError(t, store.Verify(t.Context()))
	var tr trace
	d := defined(t, tr.step("a", nil, nil), tr.step("b", nil, nil))
	res, err := ended(t, node(t, store, sagaConfig, d), d, "1")
	require.NoError(t, err)
	require.Equal(t, "before", res.State.Seen)
	require.Equal(t, []string{"b"}, tr.all())

	_, err = db.ExecContext(t.Context(), `INSERT INTO backstay_saga_schema (version) VALUES (99)`)
	require.NoError(t, err)
	require.ErrorIs(t, store.Migrate(t.Context()), sqlsaga.ErrSchema)
}

func TestSagaSchemaIsWhatMigrateRuns(t *testing.T) {
	store, _ := sagaStore(t, filepath.Join(t.TempDir(), "one.db"))
	db, err := sqlite.Open(filepath.Join(t.TempDir(), "two.db"), sqlite.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	for _, stmt := range store.Schema() {
		_, err := db.ExecContext(t.Context(), stmt)
		require.NoError(t, err)
	}
	second, err := sqlsaga.New(db, sqlsaga.SQLite())
	require.NoError(t, err)
	require.NoError(t, second.Verify(t.Context()))
}

// What waits costs a row and nothing else.
func TestACrowdOfWaitingInstances(t *testing.T) {
	n := 10_000
	if os.Getenv("BACKSTAY_LONG") == "1" {
		n = 100_000
	}
	store, db := sagaStore(t, filepath.Join(t.TempDir(), "saga.db"))
	sagatest.Crowd(t, store, n, func(ctx context.Context, id string, n int) error {
		const same = `definition, version, status, direction, step, attempt, rejected, doubt, cause, error, state, owner, parent,
		awaits, timer_ns, marks, received, mail, token, due_ms, created_ms, updated_ms`
		_, err := db.ExecContext(ctx, `WITH RECURSIVE series (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < ?2)
			INSERT INTO backstay_sagas (id, `+same+`) SELECT id || '-' || n, `+same+` FROM backstay_sagas, series WHERE id = ?1`, id, n)
		return err
	})
}
