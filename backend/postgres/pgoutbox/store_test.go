package pgoutbox_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/pubsub"
)

// newStore is a store with its tables on pool.
func newStore(t testing.TB, pool *pgxpool.Pool, cfg pgoutbox.Config) *pgoutbox.Store {
	t.Helper()
	s, err := pgoutbox.New(pool, cfg)
	require.NoError(t, err)
	require.NoError(t, s.Migrate(t.Context()))
	return s
}

// newDatabase is a store in a database of its own.
func newDatabase(t testing.TB, cfg pgoutbox.Config) (*pgoutbox.Store, *pgxpool.Pool, string) {
	t.Helper()
	url := pgtest.Database(t)
	pool := pgtest.Pool(t, url)
	return newStore(t, pool, cfg), pool, url
}

func store(t testing.TB, ob *outbox.Outbox[pgx.Tx], msgs ...pubsub.Message) {
	t.Helper()
	require.NoError(t, ob.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return ob.Publish(ctx, tx, msgs...) }))
}

func TestConformance(t *testing.T) {
	t.Parallel()
	conform(t, pgoutbox.Config{})
}

func TestConformanceWithKeyLockAndInboxByDay(t *testing.T) {
	t.Parallel()
	conform(t, pgoutbox.Config{KeyLock: true, Rescan: -1, NotifyEvery: -1, InboxByDay: true})
}

func conform(t *testing.T, cfg pgoutbox.Config) {
	t.Helper()
	var tables pgtest.Tables
	outboxtest.Run(t, outboxtest.Harness[pgx.Tx]{
		ConcurrentTx: true,
		CleansByDay:  cfg.InboxByDay,
		New: func(c *testing.T) outboxtest.Store[pgx.Tx] {
			url, prefix := tables.Next(t)
			cfg.Prefix = prefix
			return newStore(c, pgtest.Pool(c, url), cfg)
		},
	})
}
