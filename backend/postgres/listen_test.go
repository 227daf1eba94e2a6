package postgres_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
)

// listen runs Listen until the returned function or the end of the test stops it.
func listen(t testing.TB, s *pgoutbox.Store, wake func()) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Listen(ctx, wake) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// A commit wakes who listens, in another process too; a rollback does not.
func TestCommitWakes(t *testing.T) {
	t.Parallel()
	s, pool, url := newDatabase(t, pgoutbox.Config{Prefix: "Mine_"})
	elsewhere, err := pgoutbox.New(pgtest.Pool(t, url), pgoutbox.Config{Prefix: "Mine_"})
	require.NoError(t, err)
	var wakes atomic.Int64
	listen(t, elsewhere, func() { wakes.Add(1) })
	pgtest.Eventually(t, "the first connection wakes", func() bool { return wakes.Load() == 1 })
	ob := outbox.New(s, outbox.Config{})
	for i := range int64(5) { // one after the other: each wakes, since the one before was heard
		last := time.Now()
		pgtest.Eventually(t, "NotifyEvery has passed", func() bool { return time.Since(last) > time.Millisecond })
		require.ErrorIs(t, ob.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			if err := ob.Publish(ctx, tx, numbered(0, 1), numbered(0, 2)); err != nil {
				return err
			}
			return errRefused
		}), errRefused)
		last = time.Now()
		pgtest.Eventually(t, "NotifyEvery has passed", func() bool { return time.Since(last) > time.Millisecond })
		if i%2 == 0 {
			store(t, ob, numbered(0, 1))
		} else {
			store(t, ob, numbered(0, 1), numbered(0, 2))
		}
		pgtest.Eventually(t, "the commit wakes", func() bool { return wakes.Load() >= 2+i })
		require.Equal(t, 2+i, wakes.Load(), "a rollback does not")
	}
	_, err = pool.Exec(t.Context(), "SELECT 1")
	require.NoError(t, err)
}

// The listening connection is dropped without a word, by a network that swallows everything: that is found out, and it is made anew;
// relays publish in the meantime because they poll.
func TestF16_ListeningConnectionDroppedSilently(t *testing.T) {
	t.Parallel()
	s, _, url := newDatabase(t, pgoutbox.Config{})
	proxy := pgtest.NewProxy(t, url)
	pool, err := pgxpool.New(t.Context(), proxy.URL())
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	var errs failures
	listener, err := pgoutbox.New(pool, pgoutbox.Config{ListenPing: 50 * time.Millisecond}, pgoutbox.OnListenError(errs.add))
	require.NoError(t, err)
	var wakes atomic.Int64
	silent := proxy.Once("select 1", pgtest.Freeze) // the first ping is swallowed, and all that comes after
	var p outboxtest.Publisher
	relay, _ := run(t, s, &p, quick("relay"))
	listen(t, listener, func() { wakes.Add(1); relay.Notify() })
	within(t, silent)
	require.EqualValues(t, 1, wakes.Load())
	write(t, outbox.New(s, outbox.Config{}), 1, 2)
	empty(t, s)
	check(t, p.Messages(), 2, 0)
	pgtest.Eventually(t, "a new connection", func() bool { return wakes.Load() >= 2 })
	require.Equal(t, 1, errs.count())
	before := wakes.Load()
	write(t, outbox.New(s, outbox.Config{}), 3, 3)
	pgtest.Eventually(t, "a commit wakes again", func() bool { return wakes.Load() > before })
	empty(t, s)
	check(t, p.Messages(), 3, 0)
}

// A server that goes away is asked again, ever less often, until it is back.
func TestListenOutlivesTheServer(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	s := newStore(t, pgtest.Pool(t, server.URL()), pgoutbox.Config{})
	var wakes atomic.Int64
	stop := listen(t, s, func() { wakes.Add(1) })
	pgtest.Eventually(t, "the first connection", func() bool { return wakes.Load() == 1 })
	server.Restart(t)
	pgtest.Eventually(t, "the second", func() bool { return wakes.Load() == 2 })
	stop()
}
