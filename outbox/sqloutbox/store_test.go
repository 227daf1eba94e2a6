package sqloutbox_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/outbox/sqloutbox"
)

// The store's behaviour is tested in the modules of the backends, where the drivers are.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// away is a database that cannot be reached.
type away struct{}

var errAway = errors.New("no route to host")

func (away) Connect(context.Context) (driver.Conn, error) { return nil, errAway }
func (away) Driver() driver.Driver                        { return nil }

func TestNewRefuses(t *testing.T) {
	db := sql.OpenDB(away{})
	defer func() { require.NoError(t, db.Close()) }()
	_, err := sqloutbox.New(nil, sqloutbox.SQLite(), sqloutbox.Config{})
	require.ErrorContains(t, err, "database is nil")
	_, err = sqloutbox.New(db, sqloutbox.Dialect{}, sqloutbox.Config{})
	require.ErrorContains(t, err, "dialect is empty")
	for _, prefix := range []string{"1a", "a-b", "a b", "a;", "ä", `"`, strings.Repeat("a", 33)} {
		_, err = sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{Prefix: prefix})
		require.ErrorContains(t, err, "sqloutbox: Config.Prefix is ", prefix)
	}
}

func TestConfigJSON(t *testing.T) {
	text, err := json.Marshal(sqloutbox.Config{Prefix: "p_", Rescan: -1})
	require.NoError(t, err)
	require.JSONEq(t, `{"prefix":"p_","rescan":"off"}`, string(text))
	var c sqloutbox.Config
	require.NoError(t, json.Unmarshal(text, &c))
	require.Equal(t, "p_", c.Prefix)
	require.Error(t, json.Unmarshal([]byte(`{"prefixes":"p"}`), &c))
}

func TestSchemaHasThePrefixEverywhere(t *testing.T) {
	db := sql.OpenDB(away{})
	defer func() { require.NoError(t, db.Close()) }()
	for _, dialect := range []sqloutbox.Dialect{sqloutbox.SQLite(), sqloutbox.MySQL(), sqloutbox.PostgreSQL()} {
		s, err := sqloutbox.New(db, dialect, sqloutbox.Config{Prefix: "Mine_"})
		require.NoError(t, err)
		require.NotContains(t, s.Schema(), "{")
		require.NotContains(t, s.Schema(), "backstay")
		require.Equal(t, 6, strings.Count(s.Schema(), "CREATE TABLE IF NOT EXISTS Mine_"))
	}
}

// refusal is an error as MySQL's drivers have it.
type refusal struct{ Number uint16 }

func (*refusal) Error() string { return "refused" }

// empty is a database that begins and ends transactions, and nothing else.
type empty struct{}

func (empty) Connect(context.Context) (driver.Conn, error) { return emptyConn{}, nil }
func (empty) Driver() driver.Driver                        { return nil }

type emptyConn struct{}

func (emptyConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (emptyConn) Close() error                        { return nil }
func (emptyConn) Begin() (driver.Tx, error)           { return emptyConn{}, nil }
func (emptyConn) Commit() error                       { return nil }
func (emptyConn) Rollback() error                     { return nil }

func TestRetryTx(t *testing.T) {
	db := sql.OpenDB(empty{})
	defer func() { require.NoError(t, db.Close()) }()
	mysql, err := sqloutbox.New(db, sqloutbox.MySQL(), sqloutbox.Config{})
	require.NoError(t, err)
	sqlite, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{})
	require.NoError(t, err)
	for _, c := range []struct {
		name  string
		store *sqloutbox.Store
		err   error
		fails int
		calls int
		ok    bool
	}{
		{"deadlock", mysql, &refusal{1213}, 3, 4, true},
		{"lock wait", mysql, fmt.Errorf("claim: %w", &refusal{1205}), 1, 2, true},
		{"for ever", mysql, &refusal{1213}, 1000, 10, false},
		{"duplicate key", mysql, &refusal{1062}, 1, 1, false},
		{"another error", mysql, errAway, 1, 1, false},
		{"another database", sqlite, &refusal{1213}, 1, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := 0
			err := c.store.RetryTx(t.Context(), func(context.Context, *sql.Tx) error {
				if calls++; calls <= c.fails {
					return c.err
				}
				return nil
			})
			require.Equal(t, c.calls, calls)
			if c.ok {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, c.err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = mysql.RetryTx(ctx, func(context.Context, *sql.Tx) error { cancel(); return &refusal{1213} })
	require.Error(t, err)
}

// A database that is away is an error of every method, which keeps its cause.
func TestErrorsKeepTheirCause(t *testing.T) {
	db := sql.OpenDB(away{})
	defer func() { require.NoError(t, db.Close()) }()
	s, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{})
	require.NoError(t, err)
	ctx := t.Context()
	require.ErrorIs(t, s.Migrate(ctx), errAway)
	require.ErrorIs(t, s.Verify(ctx), errAway)
	_, err = s.Backlog(ctx)
	require.ErrorIs(t, err, errAway)
	_, err = s.Parked(ctx, 0, 1)
	require.ErrorIs(t, err, errAway)
	_, err = s.Skip(ctx, 1)
	require.ErrorIs(t, err, errAway)
	_, err = s.Clean(ctx, 1)
	require.ErrorIs(t, err, errAway)
	err = s.InTx(ctx, func(context.Context, *sql.Tx) error { t.Error("fn ran without a transaction"); return nil })
	require.ErrorIs(t, err, errAway)
}
