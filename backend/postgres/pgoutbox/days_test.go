package pgoutbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// calendar is a database whose clock a test puts forward by days.
type calendar struct {
	pool *pgxpool.Pool
	url  string
}

func newCalendar(t testing.TB) calendar {
	t.Helper()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE SCHEMA wrong; CREATE TABLE wrong.clock (days INT); INSERT INTO wrong.clock VALUES (0);"+
		" CREATE FUNCTION wrong.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS"+
		" $$ SELECT pg_catalog.clock_timestamp() + (SELECT days FROM wrong.clock) * interval '1 day' $$")
	url += "&search_path=wrong,pg_catalog,public"
	return calendar{pgtest.Pool(t, url), url}
}

func (c calendar) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	_, err := c.pool.Exec(t.Context(), query, args...)
	require.NoError(t, err)
}

// day is n days after the first.
func (c calendar) day(t testing.TB, n int) {
	t.Helper()
	c.exec(t, "UPDATE wrong.clock SET days = $1", n)
}

// parts counts the partitions.
func (c calendar) parts(t testing.TB) (n int) {
	t.Helper()
	require.NoError(t, c.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_inherits WHERE inhparent = 'backstay_inbox'::regclass").Scan(&n))
	return n
}

// begin begins a transaction that ends with the test at the latest.
func (c calendar) begin(t testing.TB) pgx.Tx {
	t.Helper()
	tx, err := c.pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// waits tells whether somebody waits for a lock of the kind.
func (c calendar) waits(t testing.TB, kind string) (yes bool) {
	t.Helper()
	require.NoError(t, c.pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = $1"+
		" AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))", kind).Scan(&yes))
	return yes
}

// handle handles a message and tells whether that had an effect.
func handle(t testing.TB, in *outbox.Inbox[pgx.Tx], id string) (effect bool) {
	t.Helper()
	h := in.Handler("c", func(context.Context, pgx.Tx, pubsub.Message) error { effect = true; return nil })
	require.NoError(t, h(t.Context(), pubsub.Message{ID: id}))
	return effect
}

func newInbox(s *pgoutbox.Store, retention time.Duration) *outbox.Inbox[pgx.Tx] {
	return outbox.NewInbox(s, outbox.InboxConfig{Retention: retention})
}

func clean(t testing.TB, in *outbox.Inbox[pgx.Tx]) int {
	t.Helper()
	n, err := in.Clean(t.Context())
	require.NoError(t, err)
	return n
}

// What was handled before the inbox was divided, today and tomorrow is remembered on all days until its day goes, and no longer.
func TestInboxByDay(t *testing.T) {
	t.Parallel()
	c := newCalendar(t)
	in := newInbox(newStore(t, c.pool, pgoutbox.Config{}), 84*time.Hour)
	require.True(t, handle(t, in, "before"))

	s := newStore(t, c.pool, pgoutbox.Config{InboxByDay: true})
	require.NoError(t, s.Verify(t.Context()))
	require.Equal(t, 1+8, c.parts(t))
	require.False(t, handle(t, in, "before"), "by the store that was there before")
	in = newInbox(s, 84*time.Hour)
	require.False(t, handle(t, in, "before"))
	require.True(t, handle(t, in, "today"))
	require.False(t, handle(t, in, "today"))

	c.day(t, 1)
	require.False(t, handle(t, in, "before"))
	require.False(t, handle(t, in, "today"))
	require.True(t, handle(t, in, "tomorrow"))
	c.exec(t, "ANALYZE")
	require.Zero(t, clean(t, in))
	require.Equal(t, 1+1+8, c.parts(t))

	c.day(t, 4) // 96 h after the first two, 72 h after the third
	require.Equal(t, 2, clean(t, in))
	require.Equal(t, 1+8, c.parts(t), "the third, today and those ahead")
	require.True(t, handle(t, in, "before"))
	require.True(t, handle(t, in, "today"))
	require.False(t, handle(t, in, "tomorrow"))

	c.day(t, 30)
	require.ErrorContains(t, s.Verify(t.Context()), "has no partition for tomorrow: run Clean or Migrate")
	h := in.Handler("c", func(context.Context, pgx.Tx, pubsub.Message) error { return nil })
	require.ErrorContains(t, h(t.Context(), pubsub.Message{ID: "unclean"}), "no partition")
	clean(t, in)
	require.NoError(t, s.Verify(t.Context()))
	require.Equal(t, 8, c.parts(t))
	require.True(t, handle(t, in, "unclean"))
}

// A duplicate that comes after midnight, while the first is still being handled, waits for it: no unique index has both days.
func TestInboxByDayOverMidnight(t *testing.T) {
	t.Parallel()
	c := newCalendar(t)
	s := newStore(t, c.pool, pgoutbox.Config{InboxByDay: true})
	tx := c.begin(t)
	first, _, err := s.Claim(t.Context(), tx, "c", "late", time.Hour)
	require.NoError(t, err)
	require.True(t, first)
	c.day(t, 1)
	effect := make(chan bool, 1)
	go func() {
		h := newInbox(s, time.Hour).Handler("c", func(context.Context, pgx.Tx, pubsub.Message) error { effect <- true; return nil })
		err := h(context.WithoutCancel(t.Context()), pubsub.Message{ID: "late"})
		effect <- err != nil
	}()
	pgtest.Eventually(t, "the duplicate waits", func() bool { return c.waits(t, "advisory") || len(effect) > 0 })
	require.NoError(t, tx.Commit(t.Context()))
	require.False(t, <-effect)
}

// A claim that was made on a day long gone, and is committed while that day is about to be dropped, is kept.
func TestDayWithAnOpenClaimIsNotDropped(t *testing.T) {
	t.Parallel()
	c := newCalendar(t)
	s := newStore(t, c.pool, pgoutbox.Config{InboxByDay: true})
	in := newInbox(s, 30*24*time.Hour)
	tx := c.begin(t)
	first, _, err := s.Claim(t.Context(), tx, "c", "slow", 30*24*time.Hour)
	require.NoError(t, err)
	require.True(t, first)
	c.day(t, 4)
	cleaned := make(chan error, 1)
	go func() {
		_, err := in.Clean(context.WithoutCancel(t.Context()))
		cleaned <- err
	}()
	pgtest.Eventually(t, "Clean waits for the transaction", func() bool { return c.waits(t, "relation") || len(cleaned) > 0 })
	require.NoError(t, tx.Commit(t.Context()))
	if err := <-cleaned; err != nil {
		require.ErrorContains(t, err, "lock timeout", "on a machine that was held up")
	}
	require.False(t, handle(t, in, "slow"))

	tx = c.begin(t) // one that does not end
	_, _, err = s.Claim(t.Context(), tx, "c", "endless", time.Millisecond)
	require.NoError(t, err)
	c.day(t, 100)
	_, err = in.Clean(t.Context())
	require.ErrorContains(t, err, "lock timeout")
	require.NoError(t, tx.Rollback(t.Context()))
	clean(t, in)
	require.Equal(t, 8, c.parts(t))
}

// Several processes divide, clean and handle duplicates of the same messages at once, with stores of both kinds, while days go by: one effect each.
func TestInboxByDayInSeveralProcesses(t *testing.T) {
	t.Parallel()
	const processes, messages = 4, 60
	c := newCalendar(t)
	newStore(t, c.pool, pgoutbox.Config{})
	c.exec(t, "CREATE TABLE effects (id TEXT)")
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			s, err := pgoutbox.New(c.pool, pgoutbox.Config{InboxByDay: true})
			if err == nil {
				err = s.Migrate(t.Context())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	byPgx := newInbox(newStore(t, c.pool, pgoutbox.Config{InboxByDay: true}), 30*24*time.Hour).
		Handler("c", func(ctx context.Context, tx pgx.Tx, m pubsub.Message) error {
			_, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1)", m.ID)
			return err
		})
	bySQL := outbox.NewInbox(newSQL(t, openSQL(t, c.url), ""), outbox.InboxConfig{Retention: 30 * 24 * time.Hour}).
		Handler("c", func(ctx context.Context, tx *sql.Tx, m pubsub.Message) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO effects VALUES ($1)", m.ID)
			return err
		})
	cleaner := newInbox(newStore(t, c.pool, pgoutbox.Config{InboxByDay: true}), time.Hour)
	for day := range 4 { // the messages of a day come again on the next
		c.day(t, day)
		for p := range processes {
			wg.Go(func() {
				h := []pubsub.Handler{byPgx, bySQL}[p%2]
				for i := range 2 * messages {
					if err := h(t.Context(), pubsub.Message{ID: fmt.Sprint(day-i%2, "/", i/2)}); err != nil {
						t.Error(err)
					}
				}
			})
			wg.Go(func() {
				if _, err := cleaner.Clean(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	var rows, ids int
	require.NoError(t, c.pool.QueryRow(t.Context(), "SELECT count(*), count(DISTINCT id) FROM effects").Scan(&rows, &ids))
	require.Equal(t, ids, rows)
	require.Equal(t, 5*messages, ids)
}

// Where the trigger could not see what others have committed it does not guess.
func TestInboxByDayRefusesOldSnapshots(t *testing.T) {
	t.Parallel()
	c := newCalendar(t)
	s := newStore(t, c.pool, pgoutbox.Config{InboxByDay: true})
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		err := pgx.BeginTxFunc(t.Context(), c.pool, pgx.TxOptions{IsoLevel: level}, func(tx pgx.Tx) error {
			_, _, err := s.Claim(t.Context(), tx, "c", "id", time.Hour)
			return err
		})
		require.ErrorContains(t, err, "an inbox by day needs READ COMMITTED transactions")
	}
}

// The schema is plain SQL, which may be run again, on a divided inbox as well.
func TestSchemaOfAnInboxByDay(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pool := pgtest.Pool(t, url)
	s, err := pgoutbox.New(pool, pgoutbox.Config{Prefix: "Mine_", InboxByDay: true})
	require.NoError(t, err)
	plain := newStore(t, pool, pgoutbox.Config{Prefix: "Mine_"})
	require.ErrorContains(t, s.Verify(t.Context()), "table Mine_inbox is not divided into days: run Migrate")
	for range 2 {
		pgtest.Exec(t, url, s.Schema())
		require.NoError(t, s.Verify(t.Context()))
	}
	in := newInbox(s, time.Millisecond)
	require.True(t, handle(t, in, "id"))
	require.False(t, handle(t, newInbox(plain, time.Hour), "id"))
	clean(t, in) // what was there before, which is nothing
	pgtest.Exec(t, url, s.Schema())
	require.NoError(t, s.Migrate(t.Context()))
	require.False(t, handle(t, in, "id"))
}
