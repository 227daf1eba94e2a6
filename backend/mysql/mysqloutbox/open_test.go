package mysqloutbox_test

import (
	"database/sql"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/mysql/mysqloutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

func TestConfig(t *testing.T) {
	text, err := json.Marshal(mysqloutbox.Config{MaxConns: 4, ConnLifetime: -1})
	require.NoError(t, err)
	require.JSONEq(t, `{"max_conns":4,"conn_lifetime":"off"}`, string(text))
	var c mysqloutbox.Config
	require.NoError(t, json.Unmarshal(text, &c))
	require.Equal(t, mysqloutbox.Config{MaxConns: 4, ConnLifetime: -1}, c)
	require.Error(t, json.Unmarshal([]byte(`{"max_con":4}`), &c))
	for _, n := range []int{1, -1} {
		require.ErrorContains(t, mysqloutbox.Config{MaxConns: n}.Validate(), "mysqloutbox: Config.MaxConns is ")
		_, err := mysqloutbox.Open(t.Context(), "mysql://root@127.0.0.1/x", mysqloutbox.Config{MaxConns: n})
		require.ErrorContains(t, err, "MaxConns")
	}
}

// No server is asked: the data source name says it all.
func TestOpenRefusesTheName(t *testing.T) {
	for dsn, want := range map[string][]string{
		"":                                     {"names no database"},
		"mysql://root@127.0.0.1:3306/":         {"names no database"},
		"root@tcp(127.0.0.1:3306":              {"data source name"},
		"mysql://root:%zzsecret@127.0.0.1/x":   {"mysqloutbox: the URL: "},
		"root@tcp(127.0.0.1:3306)/x?loc=Mars/": {"data source name"},
		"mysql://root@127.0.0.1/?multiStatements=true&allowAllFiles=true&time_zone=%27SYSTEM%27": {
			"names no database", "multiStatements", "allowAllFiles", "time_zone"},
	} {
		_, err := mysqloutbox.Open(t.Context(), dsn, mysqloutbox.Config{})
		for _, text := range want {
			require.ErrorContains(t, err, text, dsn)
		}
		require.NotContains(t, err.Error(), "secret")
	}
}

// What a session has been set to is checked with the server.
func TestOpenRefusesTheSession(t *testing.T) {
	url := newDatabase(t)
	isolation := sessionIsolation(t, open(t, url))
	_, err := mysqloutbox.Open(t.Context(), url+"?charset=latin1&autocommit=0&sql_mode=%27%27&"+isolation+"=%27READ-UNCOMMITTED%27", mysqloutbox.Config{})
	for _, text := range []string{"is not strict", "READ-UNCOMMITTED", "speaks latin1", "autocommit is off"} {
		require.ErrorContains(t, err, text)
	}
	_, err = mysqloutbox.Open(t.Context(), url+"_which_is_not_there", mysqloutbox.Config{})
	failed := new(mysql.MySQLError)
	require.ErrorAs(t, err, &failed)
	require.EqualValues(t, 1049, failed.Number)
}

func TestOpenSetsEveryConnection(t *testing.T) {
	target := newDatabase(t)
	driverForm := strings.Replace(strings.TrimPrefix(target, "mysql://"), "@", "@tcp(", 1)
	driverForm = strings.Replace(driverForm, "/", ")/", 1)
	for _, dsn := range []string{target, driverForm, target + "?time_zone=%27%2B00:00%27"} {
		db := open(t, dsn)
		for range 3 {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			defer func() { require.NoError(t, conn.Close()) }()
			var zone, charset string
			var now time.Time
			require.NoError(t, conn.QueryRowContext(t.Context(), "SELECT @@time_zone, @@character_set_connection, NOW()").Scan(&zone, &charset, &now))
			require.Equal(t, "+00:00", zone)
			require.Equal(t, "utf8mb4", charset)
			require.Equal(t, time.UTC, now.Location())
			require.WithinDuration(t, time.Now(), now, time.Hour)
			_, err = conn.ExecContext(t.Context(), "SELECT 1; SELECT 2")
			require.Error(t, err, "one statement at a time")
		}
	}
}

func TestMigrateIsIdempotentAndConcurrent(t *testing.T) {
	url := newDatabase(t)
	var wg sync.WaitGroup
	for range 8 {
		db := open(t, url)
		wg.Go(func() {
			s, err := sqloutbox.New(db, sqloutbox.MySQL(), sqloutbox.Config{})
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
	s, _ := migrated(t, url)
	require.NoError(t, s.Verify(t.Context()))
}

func TestSchemaIsPlainSQLAndVerifySaysWhatIsMissing(t *testing.T) {
	url := newDatabase(t)
	db := open(t, url)
	s, err := sqloutbox.New(db, sqloutbox.MySQL(), sqloutbox.Config{Prefix: "Mine_"})
	require.NoError(t, err)
	require.ErrorContains(t, s.Verify(t.Context()), "Mine_")
	cfg, err := mysql.ParseDSN(strings.NewReplacer("mysql://", "", "@", "@tcp(").Replace(url[:strings.LastIndex(url, "/")]) + ")" + url[strings.LastIndex(url, "/"):] + "?multiStatements=true")
	require.NoError(t, err)
	connector, err := mysql.NewConnector(cfg)
	require.NoError(t, err)
	client := sql.OpenDB(connector)
	defer func() { require.NoError(t, client.Close()) }()
	for range 2 {
		exec(t, client, s.Schema())
	}
	require.NoError(t, s.Verify(t.Context()))
	exec(t, db, "DELETE FROM Mine_outbox_leases WHERE bucket = 7")
	require.ErrorContains(t, s.Verify(t.Context()), "63 rows instead of 64")
	exec(t, db, "ALTER TABLE Mine_outbox DROP COLUMN header")
	require.ErrorContains(t, s.Verify(t.Context()), "Mine_outbox")
}

// Payloads together far above the packet size of the server are split by the driver or refused whole, never stored in part.
func TestLargeMessages(t *testing.T) {
	s, _ := newStore(t)
	msgs := make([]pubsub.Message, 40)
	for i := range msgs {
		msgs[i] = pubsub.Message{Topic: "t", Key: "k", Payload: make([]byte, 1<<20)}
	}
	put(t, s, msgs...)
	p := &outboxtest.Publisher{}
	start(t, s, p, outbox.RelayConfig{})
	drained(t, s)
	require.Len(t, p.Messages(), len(msgs))
}
