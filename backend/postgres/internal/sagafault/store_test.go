package sagafault_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagatest"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

// newDB makes an empty database.
func newDB(t testing.TB) *sql.DB {
	t.Helper()
	return openDB(t, pgtest.Database(t))
}

func TestSagaStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	var n atomic.Int64
	sagatest.Run(t, func(t *testing.T) saga.Store {
		store, err := sqlsaga.New(db, sqlsaga.PostgreSQL(), sqlsaga.WithPrefix(fmt.Sprintf("t%d_", n.Add(1))))
		require.NoError(t, err)
		require.NoError(t, store.Migrate(t.Context()))
		return store
	})
}

func TestSagaMigrationsByManyNodesAtOnce(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	store, err := sqlsaga.New(db, sqlsaga.PostgreSQL())
	require.NoError(t, err)
	require.ErrorIs(t, store.Verify(t.Context()), sqlsaga.ErrSchema)
	var nodes sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 8 {
		nodes.Go(func() {
			if err := store.Migrate(t.Context()); err != nil {
				failed.Store(&err)
			}
		})
	}
	nodes.Wait()
	if err := failed.Load(); err != nil {
		require.NoError(t, *err)
	}
	require.NoError(t, store.Verify(t.Context()))
	_, err = db.ExecContext(t.Context(), "INSERT INTO backstay_saga_schema (version) VALUES (99)")
	require.NoError(t, err)
	require.ErrorIs(t, store.Migrate(t.Context()), sqlsaga.ErrSchema)
	require.ErrorContains(t, store.Verify(t.Context()), "version 99")
}

type deposit struct{ Amount int }

// A step in the store's own transaction has one effect, although each is tried twice and two nodes share the work.
func TestSagaStepsInTheTransactionHaveOneEffect(t *testing.T) { onBoth(t, stepsInTheTransaction) }

func stepsInTheTransaction(t *testing.T, on driver) {
	t.Parallel()
	store, db := on.newStore(t)
	_, err := db.ExecContext(t.Context(), "CREATE TABLE ledger (id VARCHAR(64) NOT NULL, amount INTEGER NOT NULL)")
	require.NoError(t, err)
	const insert = "INSERT INTO ledger (id, amount) VALUES ($1, $2)"
	book := func(ctx context.Context, d *deposit, amount int) error {
		a, _ := saga.Current(ctx)
		d.Amount += amount
		return on.exec(ctx, insert, a.ID, amount)
	}
	d := saga.MustDefine("deposit", 1, saga.Step[deposit]{
		Name: "book", InTx: true,
		Do: func(ctx context.Context, d *deposit) error {
			a, _ := saga.Current(ctx)
			if err := book(ctx, d, 1); err != nil || a.Number > 1 {
				return err
			}
			return errors.New("after the effect")
		},
		Undo: func(ctx context.Context, d *deposit) error { return book(ctx, d, -1) },
	}, saga.Step[deposit]{Name: "refuse", Do: func(ctx context.Context, _ *deposit) error {
		if a, _ := saga.Current(ctx); strings.HasPrefix(a.ID, "bad") {
			return saga.Permanent(errors.New("refused"))
		}
		return nil
	}})
	var nodes []*saga.Runner
	for range 2 {
		r, err := saga.NewRunner(store, saga.Config{PollMax: 20 * time.Millisecond}, d)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- r.Run(ctx) }()
		t.Cleanup(func() { cancel(); require.NoError(t, <-stopped) })
		nodes = append(nodes, r)
	}
	for i := range 10 {
		require.NoError(t, saga.Start(t.Context(), nodes[i%2], d, fmt.Sprint("good", i), deposit{}))
		require.NoError(t, saga.Start(t.Context(), nodes[i%2], d, fmt.Sprint("bad", i), deposit{}))
	}
	for i := range 10 {
		_, err := saga.Wait(t.Context(), nodes[0], d, fmt.Sprint("good", i))
		require.NoError(t, err)
		_, err = saga.Wait(t.Context(), nodes[0], d, fmt.Sprint("bad", i))
		require.ErrorIs(t, err, saga.ErrCompensated)
	}
	var rows, sum, most int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*), sum(amount) FROM ledger").Scan(&rows, &sum))
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT max(n) FROM (SELECT count(*) AS n FROM ledger GROUP BY id, amount) x").Scan(&most))
	require.Equal(t, []int{30, 10, 1}, []int{rows, sum, most})
}

// What waits costs a row and nothing else.
func TestACrowdOfWaitingInstances(t *testing.T) { onBoth(t, aCrowdOfWaitingInstances) }

func aCrowdOfWaitingInstances(t *testing.T, on driver) {
	n := 10_000
	if os.Getenv("BACKSTAY_LONG") == "1" {
		n = 100_000
	}
	store, db := on.newStore(t)
	sagatest.Crowd(t, store, n, func(ctx context.Context, id string, n int) error {
		const same = `definition, version, status, direction, step, attempt, rejected, doubt, cause, error, state, owner, parent,
		awaits, timer_ns, marks, received, mail, token, due_ms, created_ms, updated_ms`
		_, err := db.ExecContext(ctx, `INSERT INTO backstay_sagas (id, `+same+`)
			SELECT id || '-' || n, `+same+` FROM backstay_sagas, generate_series(1, $2) AS n WHERE id = $1`, id, n)
		return err
	})
}
