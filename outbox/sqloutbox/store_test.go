package sqloutbox_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
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
	text, err := json.Marshal(sqloutbox.Config{Prefix: "p_"})
	require.NoError(t, err)
	require.JSONEq(t, `{"prefix":"p_"}`, string(text))
	var c sqloutbox.Config
	require.NoError(t, json.Unmarshal(text, &c))
	require.Equal(t, "p_", c.Prefix)
	require.Error(t, json.Unmarshal([]byte(`{"prefixes":"p"}`), &c))
}

func TestSchemaHasThePrefixEverywhere(t *testing.T) {
	db := sql.OpenDB(away{})
	defer func() { require.NoError(t, db.Close()) }()
	s, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{Prefix: "Mine_"})
	require.NoError(t, err)
	require.NotContains(t, s.Schema(), "{")
	require.NotContains(t, s.Schema(), "backstay")
	require.Equal(t, 6, strings.Count(s.Schema(), "CREATE TABLE IF NOT EXISTS Mine_"))
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
