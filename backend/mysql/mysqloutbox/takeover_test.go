package mysqloutbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

// With leases of briefLease another relay publishes of the keys of a dead one within takeover.
const briefLease, takeover = 2 * time.Second, 3 * time.Second

// Of three relays one dies by SIGKILL, and when its leases have run out others publish what is in its keys. This does not run beside other tests,
// since what they do to the machine would count.
func TestTakeoverAfterKill(t *testing.T) {
	url, dir := newDatabase(t), t.TempDir()
	b := openBroker(t, dir)
	s, db := migrated(t, url)
	owners := func() []string {
		return column(t, db, "SELECT DISTINCT owner FROM backstay_outbox_leases WHERE owner <> ''")
	}
	putRound(t, s, 1)
	victim := spawn(t, "brief lease", url, dir)
	drained(t, s)
	dead := owners()
	require.Len(t, dead, 1)

	published := make(chan string, 2*keys) // keys, by the survivors
	survivor := publisherFunc(func(ctx context.Context, msgs ...pubsub.Message) error {
		for _, m := range msgs {
			published <- m.Key
		}
		return b.Publish(ctx, msgs...)
	})
	cfg := fast
	cfg.Lease = briefLease
	for range 2 {
		q, err := sqloutbox.New(open(t, url), sqloutbox.MySQL(), sqloutbox.Config{})
		require.NoError(t, err)
		start(t, q, survivor, cfg, b.watch())
	}
	eventually(t, "all three have their share", func() bool { return len(owners()) == 3 })

	killed := time.Now()
	victim.kill(t)
	orphans := orphaned(t, s, dead[0])
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
		case <-time.After(patience):
			t.Fatalf("%d of %d keys were not taken over", len(orphans)-n, len(orphans))
		}
	}
	drained(t, s)
	verify(t, b.messages(t), 2, (1+int(size(t, b.fenced)))*fast.Batch)
	t.Logf("the first of %d keys %v after the kill, the last after %v", len(orphans), first.Round(time.Millisecond), last.Round(time.Millisecond))
	require.Less(t, first, takeover)
}

// orphaned stores the second message of every key and tells which keys the dead owner's buckets have.
func orphaned(t testing.TB, s *sqloutbox.Store, owner string) (orphans []string) {
	t.Helper()
	ob := outbox.New(s, outbox.Config{})
	require.NoError(t, s.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		for k := range keys {
			m := pubsub.Message{ID: fmt.Sprint(k, "/2"), Topic: "t", Key: fmt.Sprint(k), Payload: []byte("2")}
			if err := ob.Publish(ctx, tx, m); err != nil {
				return err
			}
		}
		orphans = column(t, tx, "SELECT msg_key FROM backstay_outbox JOIN backstay_outbox_leases ON bucket = lane & 63 WHERE owner = ?", owner)
		return nil
	}))
	require.NotEmpty(t, orphans)
	return orphans
}

// column reads a single column.
func column(t testing.TB, from interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}, query string, args ...any) (list []string) {
	t.Helper()
	rows, err := from.QueryContext(t.Context(), query, args...)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	for rows.Next() {
		var text string
		require.NoError(t, rows.Scan(&text))
		list = append(list, text)
	}
	require.NoError(t, rows.Err())
	return list
}
