package postgres_test

import (
	"context"
	"slices"
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

// takeover is how soon another relay publishes of the keys of a dead one, with leases of 2 s.
const takeover = 3 * time.Second

// column reads a single column.
func column[T any](t testing.TB, pool *pgxpool.Pool, query string, args ...any) []T {
	t.Helper()
	rows, err := pool.Query(t.Context(), query, args...)
	require.NoError(t, err)
	list, err := pgx.CollectRows(rows, pgx.RowTo[T])
	require.NoError(t, err)
	return list
}

// Of three relays one dies by SIGKILL: no lease outlives its length by the database's clock, and then others publish what is in its keys.
// The two stores run beside each other and nothing else, since what other tests do to the machine would count.
func TestTakeoverAfterKill(t *testing.T) {
	for _, kind := range []string{"pgx", "sql"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s, pool, url := newDatabase(t, pgoutbox.Config{})
			ob := outbox.New(s, outbox.Config{})
			write(t, ob, 1, 1)
			dir := t.TempDir()
			p := openFile(t, dir)
			victim := child(t, url, dir, kind, "never")
			empty(t, s)
			owners := func() []string {
				return column[string](t, pool, "SELECT DISTINCT owner FROM backstay_outbox_leases WHERE owner <> ''")
			}
			dead := owners()
			require.Len(t, dead, 1)

			published := make(chan string, 2*keys) // keys, by the survivors
			survivor := publisherFunc(func(ctx context.Context, msgs ...pubsub.Message) error {
				for _, m := range msgs {
					published <- m.Key
				}
				return p.Publish(ctx, msgs...)
			})
			run(t, queue(t, url, kind), survivor, quick("survivor 1"))
			run(t, queue(t, url, kind), survivor, quick("survivor 2"))
			pgtest.Eventually(t, "all three have their share", func() bool { return len(owners()) == 3 })

			killed := time.Now()
			kill(victim)
			left := column[int64](t, pool, "SELECT max(expires_at) - floor(date_part('epoch', clock_timestamp()) * 1000)::bigint FROM backstay_outbox_leases")
			require.LessOrEqual(t, left[0], quick("").Lease.Milliseconds(), "no lease is longer than it says")
			orphans := orphaned(t, s, pool, dead[0])
			var first, last time.Duration
			for n := 0; n < len(orphans); {
				select {
				case key := <-published:
					if !slices.Contains(orphans, key) {
						continue
					}
					if last = time.Since(killed); n == 0 {
						first = last
					}
					n++
				case <-time.After(pgtest.Patience):
					t.Fatalf("%d of %d keys were not taken over", len(orphans)-n, len(orphans))
				}
			}
			empty(t, s)
			check(t, p.messages(t), 2, quick("").Batch)
			t.Logf("the first of %d keys %v after the kill, the last after %v", len(orphans), first.Round(time.Millisecond), last.Round(time.Millisecond))
			require.Less(t, first, takeover)
		})
	}
}

// orphaned stores the second message of every key and tells which keys the dead owner's buckets have.
func orphaned(t testing.TB, s *pgoutbox.Store, pool *pgxpool.Pool, owner string) (orphans []string) {
	t.Helper()
	require.NoError(t, s.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		ob := outbox.New(s, outbox.Config{})
		for k := range keys {
			if err := ob.Publish(ctx, tx, numbered(k, 2)); err != nil {
				return err
			}
		}
		rows, err := tx.Query(ctx, "SELECT msg_key FROM backstay_outbox JOIN backstay_outbox_leases ON bucket = lane & 63 WHERE owner = $1", owner)
		if err != nil {
			return err
		}
		orphans, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	}))
	require.NotEmpty(t, orphans)
	return orphans
}
