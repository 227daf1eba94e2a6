package mysqloutbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/mysql/mysqloutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that happens soon on a machine that has nothing else to do.
const patience = 2 * time.Minute

// serverURL is the shared server, without a database.
func serverURL() string {
	if dsn := os.Getenv("BACKSTAY_MYSQL_URL"); dsn != "" {
		return dsn
	}
	return "mysql://root@127.0.0.1:3306/"
}

// requireServer skips the test where no server listens, and fails it where one must.
func requireServer(t testing.TB) {
	t.Helper()
	db, err := mysqloutbox.Open(t.Context(), serverURL()+"mysql", mysqloutbox.Config{})
	if err == nil {
		require.NoError(t, db.Close())
		return
	}
	absent(t, fmt.Sprintf("no MariaDB or MySQL at %s (%v): start it with: service mariadb start, or set BACKSTAY_MYSQL_URL", serverURL(), err))
}

// absent skips for want of something that CI must have.
func absent(t testing.TB, text string) {
	t.Helper()
	if os.Getenv("BACKSTAY_REQUIRE_SERVICES") == "1" {
		t.Fatal(text)
	}
	fmt.Fprintf(os.Stderr, "mysqloutbox: %s skipped: %s\n", t.Name(), text)
	t.Skip(text)
}

var databases atomic.Int64

// newDatabase makes an empty database on the shared server, dropped at the end of the test, and returns its URL.
func newDatabase(t testing.TB) string {
	t.Helper()
	requireServer(t)
	return databaseOn(t, serverURL())
}

func databaseOn(t testing.TB, server string) string {
	t.Helper()
	name := fmt.Sprintf("bstest-%d-%d", os.Getpid(), databases.Add(1))
	admin := open(t, server+"mysql")
	exec(t, admin, "CREATE DATABASE `"+name+"`")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if _, err := admin.ExecContext(ctx, "DROP DATABASE `"+name+"`"); err != nil {
			t.Logf("drop %s: %v", name, err)
		}
	})
	return server + name
}

func open(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := mysqloutbox.Open(t.Context(), url, mysqloutbox.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func exec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), query, args...)
	require.NoError(t, err)
}

// migrated is a store in the database of url, with its tables.
func migrated(t testing.TB, url string) (*sqloutbox.Store, *sql.DB) {
	t.Helper()
	db := open(t, url)
	s, err := sqloutbox.New(db, sqloutbox.MySQL(), sqloutbox.Config{})
	require.NoError(t, err)
	require.NoError(t, s.Migrate(t.Context()))
	return s, db
}

func newStore(t testing.TB) (*sqloutbox.Store, *sql.DB) {
	t.Helper()
	return migrated(t, newDatabase(t))
}

// put stores messages in a transaction of their own.
func put(t testing.TB, s *sqloutbox.Store, msgs ...pubsub.Message) {
	t.Helper()
	ob := outbox.New(s, outbox.Config{})
	require.NoError(t, ob.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error { return ob.Publish(ctx, tx, msgs...) }))
}

// start runs a relay until the returned function, or the end of the test, stops it.
func start(t testing.TB, q outbox.Queue, p pubsub.Publisher, cfg outbox.RelayConfig, opts ...outbox.RelayOption) (r *outbox.Relay, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r = outbox.NewRelay(q, p, cfg, opts...)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(patience):
			t.Error("Run did not return")
		}
	}
	t.Cleanup(stop)
	return r, stop
}

// eventually asks until done, for as long as progress, where it is given, changes.
func eventually(t testing.TB, what string, done func() bool, progress ...func() int64) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	last, since := int64(-1), time.Now()
	for !done() {
		for _, p := range progress {
			if now := p(); now != last {
				last, since = now, time.Now()
			}
		}
		if time.Since(since) > patience {
			t.Fatalf("%s: no progress for %v", what, patience)
		}
		<-tick.C
	}
}

func drained(t testing.TB, s *sqloutbox.Store) {
	t.Helper()
	var left int64
	eventually(t, "an empty outbox", func() bool {
		b, err := s.Backlog(t.Context())
		left = b.Pending
		return err == nil && left == 0
	}, func() int64 { return left })
}

// freePort is a port on which nobody listened a moment ago.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().(*net.TCPAddr).Port
}
