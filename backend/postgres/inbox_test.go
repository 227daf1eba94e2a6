package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// Every message is delivered several times at once, to handlers that fail at times after their effect: one effect each.
func TestF12_ConcurrentDuplicates(t *testing.T) {
	t.Parallel()
	s, pool, _ := newDatabase(t, pgoutbox.Config{})
	_, err := pool.Exec(t.Context(), "CREATE TABLE effects (id TEXT)")
	require.NoError(t, err)
	in := outbox.NewInbox(s, outbox.InboxConfig{})
	var mu sync.Mutex
	tries := map[string]int{}
	handle := in.Handler("c", func(ctx context.Context, tx pgx.Tx, m pubsub.Message) error {
		if _, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1)", m.ID); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if tries[m.ID]++; tries[m.ID] == 1 {
			return errRefused // after its effect, which must go with the transaction
		}
		return nil
	})
	messages := keys * perKey() / 20
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range messages {
				err := errRefused
				for errors.Is(err, errRefused) { // redelivered
					err = handle(t.Context(), pubsub.Message{ID: fmt.Sprint(i), Topic: "t"})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var rows, ids int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*), count(DISTINCT id) FROM effects").Scan(&rows, &ids))
	require.Equal(t, []int{messages, messages}, []int{rows, ids})
}

// A duplicate within the retention gets the stored result; so does one after it, until Clean has run; then it has its effect again.
func TestF13_RedeliveryAfterRetention(t *testing.T) {
	t.Parallel()
	s, _, _ := newDatabase(t, pgoutbox.Config{})
	in := outbox.NewInbox(s, outbox.InboxConfig{Retention: time.Millisecond})
	effects := 0
	deliver := func() (result int) {
		require.NoError(t, s.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) (err error) {
			result, err = outbox.Once(ctx, in, tx, "c", "id", func(context.Context) (int, error) { effects++; return effects, nil })
			return err
		}))
		return result
	}
	require.Equal(t, 1, deliver())
	require.Equal(t, 1, deliver(), "the stored result, whether or not the retention has passed")
	pgtest.Eventually(t, "the end of the retention", func() bool {
		n, err := in.Clean(t.Context())
		require.NoError(t, err)
		return n == 1
	})
	require.Equal(t, 2, deliver(), "its effect once more")
	require.Equal(t, 2, deliver())
}

// Claim's documented answer at REPEATABLE READ: the duplicate whose first delivery committed within its lifetime fails and is to be
// handled again.
func TestInboxAtRepeatableRead(t *testing.T) {
	t.Parallel()
	s, pool, _ := newDatabase(t, pgoutbox.Config{})
	in := outbox.NewInbox(s, outbox.InboxConfig{})
	once := func(ctx context.Context, tx pgx.Tx) error {
		_, err := outbox.Once(ctx, in, tx, "c", "id", func(context.Context) (struct{}, error) { return struct{}{}, nil })
		return err
	}
	tx, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT count(*) FROM backstay_inbox") // its snapshot is taken here
	require.NoError(t, err)
	require.NoError(t, s.InTx(t.Context(), once))
	require.ErrorContains(t, once(t.Context(), tx), "40001")
	require.NoError(t, tx.Rollback(t.Context()))
}
