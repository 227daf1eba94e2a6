package pgsaga_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgsaga"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagatest"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

func newStore(t *testing.T, cfg pgsaga.Config) (*pgsaga.Store, *pgxpool.Pool) {
	t.Helper()
	pool := pgtest.Pool(t, pgtest.Database(t))
	store, err := pgsaga.New(pool, cfg)
	require.NoError(t, err)
	require.NoError(t, store.Migrate(t.Context()))
	return store, pool
}

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t, pgtest.Database(t))
	var n atomic.Int64
	sagatest.Run(t, func(t *testing.T) saga.Store {
		store, err := pgsaga.New(pool, pgsaga.Config{Prefix: fmt.Sprintf("t%d_", n.Add(1))})
		require.NoError(t, err)
		require.NoError(t, store.Migrate(t.Context()))
		return store
	})
}

type order struct{ N int }

var nothing = saga.MustDefine("order", 1, saga.Step[order]{Name: "1", Do: func(context.Context, *order) error { return nil }})

func instance(t *testing.T, id string) saga.Instance {
	t.Helper()
	in, err := nothing.NewInstance(id, order{})
	require.NoError(t, err)
	return in
}

// held is an instance that somebody works on.
func held(t *testing.T, s saga.Store, id string) saga.Instance {
	t.Helper()
	in := instance(t, id)
	in.Owner = "node"
	created, err := s.Create(t.Context(), in, time.Minute)
	require.NoError(t, err)
	require.True(t, created)
	in.Token = 1
	return in
}

func moved(in saga.Instance, step string) *saga.Progress {
	p := in.Progress
	p.Step = step
	return &p
}

// Both stores are at home on the tables, whoever made them, and read what the other wrote.
func TestTheStoresShareTheirTables(t *testing.T) {
	t.Parallel()
	s, pool := newStore(t, pgsaga.Config{Prefix: "shared_"})
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	other, err := sqlsaga.New(db, sqlsaga.PostgreSQL(), sqlsaga.WithPrefix("shared_"))
	require.NoError(t, err)
	require.NoError(t, other.Verify(t.Context()))
	require.NoError(t, s.Verify(t.Context()))
	require.Equal(t, other.Schema(), s.Schema())
	for id, stores := range map[string][2]saga.Store{"1": {s, other}, "2": {other, s}} {
		in := held(t, stores[0], id)
		e := &saga.Event{Step: "1", Direction: saga.Forward, Attempt: 1, Outcome: saga.Done, Owner: "node"}
		for n, store := range stores {
			recorded, err := store.Commit(t.Context(), []saga.Transition{{
				ID: id, Token: int64(n + 1), Next: moved(in, fmt.Sprint("after ", n)), Hold: time.Minute, Event: e,
			}})
			require.NoError(t, err)
			require.Equal(t, []bool{true}, recorded)
		}
		first, lines, err := s.Load(t.Context(), id)
		require.NoError(t, err)
		second, same, err := other.Load(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, first, second)
		require.Equal(t, lines, same)
		require.Len(t, lines, 2)
	}
	counts, err := s.Counts(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, counts[0].Instances)
	n, err := s.Purge(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Zero(t, n, "nothing has ended")
}

// A step that leaves the lease as it is changes no column of an index, so that its row needs no new entries there; the lease is never
// shorter than what is asked for.
func TestAStepLeavesALeaseThatIsLongEnough(t *testing.T) {
	t.Parallel()
	s, pool := newStore(t, pgsaga.Config{})
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	other, err := sqlsaga.New(db, sqlsaga.PostgreSQL())
	require.NoError(t, err)
	for id, store := range map[string]saga.Store{"pgsaga": s, "sqlsaga": other} {
		due := func() time.Duration {
			in, _, err := store.Load(t.Context(), id)
			require.NoError(t, err)
			return in.Due.Sub(in.Created)
		}
		in := instance(t, id)
		in.Owner = "node"
		_, err := store.Create(t.Context(), in, time.Hour)
		require.NoError(t, err)
		first := due()
		require.Equal(t, time.Hour+time.Hour/8, first)
		hold := func(token int64, lease time.Duration) {
			require.NoError(t, commit(t, store, saga.Transition{ID: id, Token: token, Next: moved(in, "2"), Hold: lease}))
		}
		hold(1, time.Hour)
		require.Equal(t, first, due())
		hold(2, 2*time.Hour)
		require.GreaterOrEqual(t, due(), 2*time.Hour+time.Hour/4)
		hold(3, time.Hour)
		require.GreaterOrEqual(t, due(), 2*time.Hour, "it is not taken back")
	}
	var indexed int
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_indexes WHERE tablename = 'backstay_sagas'
		AND indexdef LIKE '%updated_ms%' AND indexdef NOT LIKE '%WHERE%'`).Scan(&indexed))
	require.Zero(t, indexed, "updated_ms changes with each step")
}

// A claim passes over what another is claiming just now: it neither waits for it nor takes it.
func TestAClaimPassesOverWhatAnotherHasLocked(t *testing.T) {
	t.Parallel()
	s, pool := newStore(t, pgsaga.Config{})
	for _, id := range []string{"locked", "free"} {
		created, err := s.Create(t.Context(), instance(t, id), 0)
		require.NoError(t, err)
		require.True(t, created)
	}
	lock, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = lock.Rollback(context.Background()) }() // the pool waits for it
	_, err = lock.Exec(t.Context(), "SELECT id FROM backstay_sagas WHERE id = 'locked' FOR UPDATE")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	claim := saga.Claim{Owner: "node", Known: []saga.Ref{nothing.Ref()}, Limit: 2, Lease: time.Minute}
	ins, err := s.Claim(ctx, claim)
	require.NoError(t, err)
	require.Len(t, ins, 1)
	require.Equal(t, "free", ins[0].ID)
	require.NoError(t, lock.Rollback(t.Context()))
	ins, err = s.Claim(t.Context(), claim)
	require.NoError(t, err)
	require.Len(t, ins, 1)
	require.Equal(t, "locked", ins[0].ID)
}

// A commit of many kinds of changes records each that fits, in whatever order they come, and an instance may be in it twice.
func TestACommitFencesEachChangeAlone(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, pgsaga.Config{})
	ins := map[string]saga.Instance{}
	for _, id := range []string{"a", "b", "c", "d", "parent"} {
		ins[id] = held(t, s, id)
	}
	ended := moved(ins["c"], "last")
	ended.Status = saga.Completed
	e := &saga.Event{Step: "1", Direction: saga.Forward, Outcome: saga.Done, Owner: "node"}
	news := func(id string) saga.Transition {
		return saga.Transition{ID: id, Deliver: &saga.Delivery{Name: "news", Data: json.RawMessage(`1`)}}
	}
	recorded, err := s.Commit(t.Context(), []saga.Transition{
		{ID: "d", Token: 1, Hold: time.Hour},
		news("parent"),
		{ID: "b", Token: 7, Next: moved(ins["b"], "never"), Hold: time.Minute, Event: e},
		{ID: "a", Token: 1, Next: moved(ins["a"], "2"), Hold: time.Minute, Event: e},
		{ID: "a", Token: 2, Next: moved(ins["a"], "3"), Hold: time.Minute, Event: e},
		{ID: "c", Token: 1, Next: ended, Event: e},
		{ID: "gone", Token: 1, Next: moved(ins["a"], "2"), Event: e},
		{ID: "b", Token: 7, Hold: time.Hour},
		news("c"), // it has ended
		news("gone"),
	})
	require.NoError(t, err)
	require.Equal(t, []bool{true, true, false, true, true, true, false, false, false, false}, recorded)
	for id, want := range map[string]string{"a": "3", "b": "1", "c": "last", "d": "1"} {
		in, history, err := s.Load(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, want, in.Step, id)
		require.Len(t, history, map[string]int{"a": 2, "c": 1}[id], id)
	}
	parent, _, err := s.Load(t.Context(), "parent")
	require.NoError(t, err)
	require.Contains(t, parent.Received, "news")
}

// One that the database does not take, one that is there and one that is given up do not hold up those they share a commit with.
func TestCreationsThatShareACommit(t *testing.T) {
	t.Parallel()
	s, pool := newStore(t, pgsaga.Config{})
	held(t, s, "there")
	ctx := t.Context()
	lock, err := pool.Begin(ctx) // the first creation waits for it, and the others for the first
	require.NoError(t, err)
	_, err = lock.Exec(ctx, "LOCK TABLE backstay_sagas IN SHARE MODE")
	require.NoError(t, err)
	waiting := func() (n int) {
		require.NoError(t, lock.QueryRow(ctx, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'backstay_sagas'::regclass").Scan(&n))
		return n
	}
	var creators sync.WaitGroup
	create := func(ctx context.Context, id string, check func(created bool, err error)) {
		in := instance(t, id)
		creators.Go(func() { check(s.Create(ctx, in, 0)) })
	}
	var made, failed, givenUp atomic.Int64
	count := func(created bool, err error) {
		switch {
		case created:
			made.Add(1)
		case err != nil:
			failed.Add(1)
		}
	}
	create(ctx, "first", count)
	pgtest.Eventually(t, "the first waits", func() bool { return waiting() == 1 })
	left, leave := context.WithCancel(ctx)
	create(left, "left", func(created bool, err error) {
		if !created && errors.Is(err, context.Canceled) {
			givenUp.Add(1)
		}
	})
	for range 2 {
		for i := range 20 {
			create(ctx, fmt.Sprint("good", i), count)
		}
	}
	create(ctx, "there", count)
	create(ctx, "no text \x00", count)
	leave()
	pgtest.Eventually(t, "one gives up", func() bool { return givenUp.Load() == 1 })
	require.Equal(t, 1, waiting(), "the others wait behind the first")
	require.NoError(t, lock.Rollback(ctx))
	creators.Wait()
	require.EqualValues(t, 21, made.Load())
	require.EqualValues(t, 1, failed.Load())
	all, err := s.List(ctx, saga.Filter{})
	require.NoError(t, err)
	require.Len(t, all, 22)
}

// listen runs Listen until the test ends, and waits for its connection.
func listen(t *testing.T, s *pgsaga.Store, wake func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	connected := make(chan struct{})
	once := sync.OnceFunc(func() { close(connected) })
	done := make(chan error, 1)
	go func() { done <- s.Listen(ctx, func() { wake(); once() }) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	<-connected
}

// What one node leaves due to nobody wakes another, in whatever way it comes about.
func TestWhatIsDueWakesWaitingNodes(t *testing.T) {
	t.Parallel()
	s, pool := newStore(t, pgsaga.Config{NotifyEvery: time.Nanosecond})
	elsewhere, err := pgsaga.New(pool, pgsaga.Config{})
	require.NoError(t, err)
	var wakes atomic.Int64
	listen(t, elsewhere, func() { wakes.Add(1) })
	require.EqualValues(t, 1, wakes.Load())
	waiting := moved(instance(t, "awaits"), "1")
	waiting.Awaits = "event"
	for what, do := range map[string]func() error{
		"Create":  func() error { _, err := s.Create(t.Context(), instance(t, "created"), 0); return err },
		"StartTx": func() error { return pgx.BeginFunc(t.Context(), pool, startTx(t, s, "started")) },
		"handed": func() error {
			return commit(t, s, saga.Transition{ID: "handed", Token: 1, Next: moved(held(t, s, "handed"), "1")})
		},
		"an event": func() error {
			held(t, s, "awaits")
			if err := commit(t, s, saga.Transition{ID: "awaits", Token: 1, Next: waiting, Wait: time.Hour}); err != nil {
				return err
			}
			return commit(t, s, saga.Transition{ID: "awaits", Deliver: &saga.Delivery{Name: "event", Data: json.RawMessage(`1`)}})
		},
	} {
		before := wakes.Load()
		require.NoError(t, do(), what)
		pgtest.Eventually(t, what+" wakes", func() bool { return wakes.Load() > before })
	}
	before := wakes.Load()
	held(t, s, "mine") // what its creator works on, and what waits, is nobody else's business
	require.NoError(t, commit(t, s, saga.Transition{ID: "mine", Token: 1, Next: moved(instance(t, "mine"), "1"), Wait: time.Hour}))
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, startTx(t, s, "last"))) // notifications come in the order of commits
	pgtest.Eventually(t, "the last wakes", func() bool { return wakes.Load() > before })
	require.Equal(t, before+1, wakes.Load())
}

func commit(t *testing.T, s saga.Store, tr saga.Transition) error {
	t.Helper()
	recorded, err := s.Commit(t.Context(), []saga.Transition{tr})
	if err == nil && !recorded[0] {
		err = errors.New("not recorded")
	}
	return err
}

func startTx(t *testing.T, s *pgsaga.Store, id string) func(tx pgx.Tx) error {
	return func(tx pgx.Tx) error { return pgsaga.StartTx(t.Context(), s, tx, nothing, id, order{}) }
}

// An instance that is started in a transaction exists if that is committed, and once.
func TestStartTxSharesTheFateOfItsTransaction(t *testing.T) {
	t.Parallel()
	s, pool := newStore(t, pgsaga.Config{})
	refused := errors.New("refused")
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return errors.Join(startTx(t, s, "1")(tx), refused) })
	require.ErrorIs(t, err, refused)
	_, _, err = s.Load(t.Context(), "1")
	require.ErrorIs(t, err, saga.ErrNotFound)
	for range 2 {
		require.NoError(t, pgx.BeginFunc(t.Context(), pool, startTx(t, s, "1")))
	}
	_, _, err = s.Load(t.Context(), "1")
	require.NoError(t, err)
	other := saga.MustDefine("other", 1, saga.Step[order]{Name: "1", Do: func(context.Context, *order) error { return nil }})
	err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return pgsaga.StartTx(t.Context(), s, tx, other, "1", order{}) })
	require.ErrorIs(t, err, saga.ErrExists)
}

func TestNewRefusesWhatItCannotUse(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), "postgres://nobody@127.0.0.1:1/none")
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	_, err = pgsaga.New(nil, pgsaga.Config{})
	require.ErrorContains(t, err, "pool")
	_, err = pgsaga.New(pool, pgsaga.Config{}, nil)
	require.ErrorContains(t, err, "option is nil")
	_, err = pgsaga.New(pool, pgsaga.Config{}, pgsaga.OnListenError(nil))
	require.ErrorContains(t, err, "hook")
	_, err = pgsaga.New(pool, pgsaga.Config{Prefix: "1"})
	require.ErrorContains(t, err, `Prefix is "1"`)
}
