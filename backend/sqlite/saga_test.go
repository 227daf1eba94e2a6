package sqlite_test

import (
	"database/sql"
	"path/filepath"
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
