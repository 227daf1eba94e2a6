package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/sqlite"
)

func open(t testing.TB, path string, cfg sqlite.Config) *sql.DB {
	t.Helper()
	db, err := sqlite.Open(path, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func TestOpenSetsEveryConnection(t *testing.T) {
	for synchronous, want := range map[string]int{"": 2, "full": 2, "normal": 1} {
		db := open(t, filepath.Join(t.TempDir(), "a.db"), sqlite.Config{Synchronous: synchronous, MaxConns: 3})
		for range 3 { // all connections of the pool, held at once
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			defer func() { require.NoError(t, conn.Close()) }()
			for pragma, want := range map[string]any{"journal_mode": "wal", "synchronous": want, "foreign_keys": 1, "busy_timeout": 30000} {
				var got any
				require.NoError(t, conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
				require.EqualValues(t, want, got, pragma)
			}
		}
	}
}

// The wait for a lock is another in a transaction, which looks at its context meanwhile, and what it was afterwards for every kind of
// statement.
func TestAStatementAfterATransactionWaitsForTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	db, other := open(t, path, sqlite.Config{}), open(t, path, sqlite.Config{})
	_, err := other.ExecContext(t.Context(), "CREATE TABLE t (x)")
	require.NoError(t, err)
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	prepared, err := conn.PrepareContext(t.Context(), "INSERT INTO t VALUES (1)")
	require.NoError(t, err)
	defer func() { require.NoError(t, prepared.Close()) }()
	for name, insert := range map[string]func() error{
		"text":     func() error { _, err := conn.ExecContext(t.Context(), "INSERT INTO t VALUES (1)"); return err },
		"prepared": func() error { _, err := prepared.ExecContext(t.Context()); return err },
		"query": func() error {
			var x int
			return conn.QueryRowContext(t.Context(), "INSERT INTO t VALUES (1) RETURNING x").Scan(&x)
		},
		"prepared query": func() error {
			var x int
			return prepared.QueryRowContext(t.Context()).Scan(&x)
		},
	} {
		for _, commit := range []bool{true, false} {
			tx, err := conn.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			end := tx.Rollback
			if commit {
				end = tx.Commit
			}
			require.NoError(t, end())
			lock, err := other.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			released := time.AfterFunc(250*time.Millisecond, func() { _ = lock.Rollback() }) // several turns of a beginning transaction
			err = insert()
			if name == "prepared query" && errors.Is(err, sql.ErrNoRows) {
				err = nil // it returns nothing
			}
			require.NoError(t, err, name)
			require.False(t, released.Stop(), "%s: the lock was still held", name)
		}
	}
}

func TestOpenTakesThePathAsItIs(t *testing.T) {
	for _, name := range []string{"a b.db", "a?b=c.db", "a%20b.db", "a#b.db", "a&b+c.db", "ä€.db", "q'\".db", "%zz"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db := open(t, filepath.Join(dir, name), sqlite.Config{})
			_, err := db.ExecContext(t.Context(), "CREATE TABLE t (x)")
			require.NoError(t, err)
			require.FileExists(t, filepath.Join(dir, name))
			var synchronous int
			require.NoError(t, db.QueryRowContext(t.Context(), "PRAGMA foreign_keys").Scan(&synchronous))
			require.Equal(t, 1, synchronous, "the settings are still read")
		})
	}
}

func TestOpenRelativePathOutlivesChdir(t *testing.T) {
	t.Chdir(t.TempDir())
	db := open(t, "a.db", sqlite.Config{})
	t.Chdir(t.TempDir())
	first, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, first.Close()) }()
	_, err = db.ExecContext(t.Context(), "CREATE TABLE t (x)") // on a second, new connection
	require.NoError(t, err)
	require.NoFileExists(t, "a.db")
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "text")
	require.NoError(t, os.WriteFile(file, []byte("this is not a database, only some lines of text that are long enough"), 0o600))
	for name, c := range map[string]struct {
		path string
		cfg  sqlite.Config
		want string
	}{
		"empty path":        {"", sqlite.Config{}, "path is empty"},
		"in memory":         {":memory:", sqlite.Config{}, "in-memory"},
		"uri":               {"file:a.db?mode=memory", sqlite.Config{}, "not a path"},
		"zero byte":         {"a\x00.db", sqlite.Config{}, "zero byte"},
		"missing directory": {filepath.Join(dir, "none", "a.db"), sqlite.Config{}, "none"},
		"under a file":      {filepath.Join(file, "a.db"), sqlite.Config{}, "not a directory"},
		"directory":         {dir, sqlite.Config{}, "is a directory"},
		"not a database":    {file, sqlite.Config{}, "not a database"},
		"synchronous":       {"a.db", sqlite.Config{Synchronous: "off"}, `Config.Synchronous is "off"`},
		"one connection":    {"a.db", sqlite.Config{MaxConns: 1}, "Config.MaxConns is 1"},
		"negative conns":    {"a.db", sqlite.Config{MaxConns: -1}, "Config.MaxConns is -1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sqlite.Open(c.path, c.cfg)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "sqlite: ")
		})
	}
}

// Sixteen writers that read before they write, and sixteen readers, over two pools as two processes would have them: nobody
// is refused and no update is lost.
func TestWritersTakeTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	pools := []*sql.DB{open(t, path, sqlite.Config{}), open(t, path, sqlite.Config{Synchronous: "normal"})}
	_, err := pools[0].ExecContext(t.Context(), "CREATE TABLE counter (n INTEGER NOT NULL); INSERT INTO counter VALUES (0)")
	require.NoError(t, err)
	const writers, rounds = 16, 25
	var wg sync.WaitGroup
	errs := make(chan error, 2*writers)
	for i := range writers {
		wg.Go(func() { errs <- repeat(rounds, func() error { return increment(t.Context(), pools[i%2]) }) })
		wg.Go(func() { errs <- repeat(rounds, func() error { return read(t.Context(), pools[i%2]) }) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	var n int
	require.NoError(t, pools[0].QueryRowContext(t.Context(), "SELECT n FROM counter").Scan(&n))
	require.Equal(t, writers*rounds, n)
}

func TestManyOpenOneNewFileAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	var wg sync.WaitGroup
	errs := make(chan error, 16)
	for range cap(errs) {
		wg.Go(func() {
			db, err := sqlite.Open(path, sqlite.Config{})
			if err == nil {
				_, err = db.ExecContext(t.Context(), "CREATE TABLE IF NOT EXISTS t (x)")
			}
			if err == nil {
				err = db.Close()
			}
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
}

func TestWaitForTheWriteLockEndsWithTheContext(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"), sqlite.Config{})
	holder, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // by then it waits
	defer cancel()
	begun := time.Now()
	_, err = db.BeginTx(ctx, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begun), 10*time.Second, "of the 30 seconds that the lock would have taken")
	reader, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	require.NoError(t, err, "a reader does not wait for the writer")
	require.NoError(t, reader.Rollback())
	require.NoError(t, holder.Rollback())
	next, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err, "nobody holds the lock any more")
	require.NoError(t, next.Rollback())
}

func repeat(n int, op func() error) error {
	for i := range n {
		if err := op(); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
	}
	return nil
}

func increment(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var n int
	if err := tx.QueryRowContext(ctx, "SELECT n FROM counter").Scan(&n); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "UPDATE counter SET n = ?", n+1); err != nil {
		return err
	}
	return tx.Commit()
}

func read(ctx context.Context, db *sql.DB) error {
	var n int
	return db.QueryRowContext(ctx, "SELECT n FROM counter").Scan(&n)
}
