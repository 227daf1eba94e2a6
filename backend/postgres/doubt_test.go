package postgres_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
)

// What pgx calls safe to retry is not: a statement without arguments whose answer was cut off has been executed. Should pgx
// change its mind, this test says so, and the stores are right all the same.
func TestDriverCallsAnExecutedStatementSafeToRetry(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE effects (x int)")
	proxy := pgtest.NewProxy(t, url)
	conn, err := pgx.Connect(t.Context(), proxy.URL())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	proxy.Once("insert into effects", pgtest.CutAnswer)
	_, err = conn.Exec(t.Context(), "INSERT INTO effects VALUES (1)")
	require.Error(t, err)
	var n int
	require.NoError(t, pgtest.Pool(t, url).QueryRow(t.Context(), "SELECT count(*) FROM effects").Scan(&n))
	require.Equal(t, 1, n, "it was executed")
	require.True(t, pgconn.SafeToRetry(err), "pgx no longer calls it safe to retry: mend the documentation")
}

// The answer to a commit is cut off: both stores say that it is in doubt, and the message is published.
func TestCommitInDoubt(t *testing.T) {
	t.Parallel()
	s, _, url := newDatabase(t, pgoutbox.Config{})
	proxy := pgtest.NewProxy(t, url)
	throughPgx, err := pgoutbox.New(pgtest.Pool(t, proxy.URL()), pgoutbox.Config{})
	require.NoError(t, err)
	ob := outbox.New(throughPgx, outbox.Config{})
	l, err := s.Lease(t.Context(), "a", pgtest.Patience)
	require.NoError(t, err)

	proxy.Once("commit", pgtest.CutAnswer)
	err = ob.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return ob.Publish(ctx, tx, numbered(1, 1)) })
	require.ErrorIs(t, err, outbox.ErrInDoubt)
	require.Equal(t, 1, fetched(t, s, l), "pgx: it took place")

	// Cut before the server sees the commit: it did not take place, and nobody on this side can know.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	sent := proxy.Once("commit", pgtest.Freeze)
	go func() {
		done <- ob.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error { return ob.Publish(ctx, tx, numbered(1, 2)) })
	}()
	within(t, sent)
	cancel()
	require.ErrorIs(t, <-done, outbox.ErrInDoubt)
	proxy.Cut()
	proxy.Judge(nil)

	throughSQL, err := sqloutbox.New(openSQL(t, proxy.URL()), sqloutbox.PostgreSQL(), sqloutbox.Config{})
	require.NoError(t, err)
	obSQL := outbox.New(throughSQL, outbox.Config{})
	proxy.Once("commit", pgtest.CutAnswer)
	err = obSQL.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error { return obSQL.Publish(ctx, tx, numbered(1, 3)) })
	require.ErrorIs(t, err, outbox.ErrInDoubt)
	require.Equal(t, 2, fetched(t, s, l), "database/sql: it took place")
}

func fetched(t testing.TB, q outbox.Queue, l outbox.Leases) int {
	t.Helper()
	records, err := q.Fetch(t.Context(), l, 1000)
	require.NoError(t, err)
	return len(records)
}

// Where the server itself says that it rolled back, there is no doubt.
func TestCommitRefused(t *testing.T) {
	t.Parallel()
	s, pool, _ := newDatabase(t, pgoutbox.Config{})
	_, err := pool.Exec(t.Context(), "CREATE TABLE orders (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
	require.NoError(t, err)
	ob := outbox.New(s, outbox.Config{})
	for name, spoil := range map[string]string{
		"by a deferred constraint": "INSERT INTO orders VALUES (1), (1)",
		"after a failed statement": "SELECT 1/0",
	} {
		err := ob.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			err := ob.Publish(ctx, tx, numbered(1, 1))
			_, _ = tx.Exec(ctx, spoil)
			return err
		})
		require.Error(t, err, name)
		require.NotErrorIs(t, err, outbox.ErrInDoubt, name)
	}
	b, err := s.Backlog(t.Context())
	require.NoError(t, err)
	require.Zero(t, b.Pending)
}

// A batch whose settlement was made and whose answer was cut off is settled again, and published once.
func TestSettleInDoubtRepeatsNothing(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		s, _, url := newDatabase(t, pgoutbox.Config{})
		write(t, outbox.New(s, outbox.Config{}), 1, 2)
		proxy := pgtest.NewProxy(t, url)
		dir := t.TempDir()
		p := openFile(t, dir)
		cut := make(chan struct{})
		var deleting, done bool // pgx sends the text when it prepares it, and executes it with the next packet
		proxy.Judge(func(sent []byte) pgtest.Verdict {
			text := strings.ToLower(string(sent))
			switch {
			case done:
			case strings.Contains(text, "delete from backstay_outbox "):
				deleting = true
			case deleting && (kind == "pgx" || strings.Contains(text, "commit")):
				done = true
				close(cut)
				return pgtest.CutAnswer
			}
			return pgtest.Pass
		})
		run(t, queue(t, proxy.URL(), kind), p, quick("relay"))
		within(t, cut)
		empty(t, s)
		check(t, p.messages(t), 2, 0)
	})
}
