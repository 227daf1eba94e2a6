package bench

import (
	"context"
	"database/sql"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay-go/backstay/backend/postgres/pgsaga"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

const (
	sagaMemoryCase = "memory, saga of 3 steps"
	sagaLiteCase   = "SQLite, saga of 3 steps"
	sagaServerCase = "PostgreSQL, saga of 3 steps"
	sagaMedianCase = "PostgreSQL, from Start to the first step, median"
	sagaTailCase   = "PostgreSQL, from Start to the first step, p99"
	sixteenClients = ", 16 clients"

	oursExecuting = ours + ", Execute"
	sagaCommits   = 4 // the start, and each step's result with the intent of the next
)

func sagas() []Case {
	l := list{area: Saga}
	l.append(sagaMemoryCase, Floor, statesByHand)
	l.append(sagaMemoryCase, ours, sagasInMemory(startAndWait))
	l.append(sagaMemoryCase, oursExecuting, sagasInMemory(execute))
	for _, work := range []struct {
		suffix  string
		clients int
	}{{"", 1}, {sixteenClients, 16}} {
		l.append(sagaLiteCase+work.suffix, Floor, commits(onSQLite, work.clients))
		l.append(sagaLiteCase+work.suffix, ours, stored(onSQLite, work.clients, startAndWait))
		l.append(sagaLiteCase+work.suffix, oursExecuting, stored(onSQLite, work.clients, execute))
		l.onPostgres(sagaServerCase+work.suffix, Floor, commits(onServer, work.clients))
		l.onPostgres(sagaServerCase+work.suffix, ours, stored(onPgx, work.clients, startAndWait))
		l.onPostgres(sagaServerCase+work.suffix, oursExecuting, stored(onPgx, work.clients, execute))
		l.onPostgres(sagaServerCase+work.suffix, oursSQL, stored(onServer, work.clients, startAndWait))
	}
	l.onPostgres(sagaMedianCase, Floor, toFirstStep(0.5, oneCommit))
	l.onPostgres(sagaMedianCase, ours, toFirstStep(0.5, firstStep))
	l.onPostgres(sagaTailCase, Floor, toFirstStep(0.99, oneCommit))
	l.onPostgres(sagaTailCase, ours, toFirstStep(0.99, firstStep))
	return l.cases
}

func sagaTargets() []Target {
	const allocs = 200
	return []Target{
		{sagaMemoryCase, oursExecuting, Floor, 0, false, float64(2 * time.Microsecond), 16},
		{sagaServerCase, ours, Floor, 1 / 0.9, false, 0, allocs},
		{sagaServerCase + sixteenClients, ours, Floor, 1 / 1.3, false, 0, allocs},
		{sagaLiteCase, ours, Floor, 1 / 0.8, false, 0, allocs},
		{sagaTailCase, ours, Floor, 0, false, float64(5 * time.Millisecond), anyNumber},
	}
}

type sagaState struct{ Items []string }

func threeSteps(first func()) *saga.Definition[sagaState] {
	nothing := func(context.Context, *sagaState) error { return nil }
	return saga.MustDefine("bench", 1,
		saga.Step[sagaState]{Name: "1", Do: func(context.Context, *sagaState) error { first(); return nil }},
		saga.Step[sagaState]{Name: "2", Do: nothing}, saga.Step[sagaState]{Name: "3", Do: nothing})
}

// oneSaga takes a saga from its start to its result.
type oneSaga func(ctx context.Context, r *saga.Runner, d *saga.Definition[sagaState], id string) error

func execute(ctx context.Context, r *saga.Runner, d *saga.Definition[sagaState], id string) error {
	_, err := saga.Execute(ctx, r, d, id, sagaState{})
	return err
}

func startAndWait(ctx context.Context, r *saga.Runner, d *saga.Definition[sagaState], id string) error {
	if err := saga.Start(ctx, r, d, id, sagaState{}); err != nil {
		return err
	}
	_, err := saga.Wait(ctx, r, d, id)
	return err
}

// statesByHand encodes the state once for each change and keeps it: the floor in memory.
func statesByHand(b *testing.B) {
	kept := map[string][]byte{}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n++; n%1000 == 0 {
			clear(kept)
		}
		for range sagaCommits {
			text, err := json.Marshal(sagaState{})
			must(b, err)
			kept[strconv.Itoa(n)] = text
		}
	}
}

// running is a runner that works until the benchmark ends.
func running(b *testing.B, store saga.Store, d *saga.Definition[sagaState]) *saga.Runner {
	b.Helper()
	r, err := saga.NewRunner(store, saga.Config{}, d)
	must(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	b.Cleanup(func() { cancel(); check(b, <-ended) })
	return r
}

func sagasInMemory(one oneSaga) func(*testing.B) {
	return func(b *testing.B) {
		store, d := memsaga.New(), threeSteps(func() {})
		r := running(b, store, d)
		ctx := context.Background()
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			if n++; n%1000 == 0 {
				_, err := store.Purge(ctx, 0, n) // as a long-lived process does
				must(b, err)
			}
			must(b, one(ctx, r, d, strconv.Itoa(n)))
		}
	}
}

// sagaDB is a database for sagas, and for a table of the floor's if that is measured there.
type sagaDB struct {
	store          func(*testing.B) saga.Store
	open           func(*testing.B) *sql.DB
	create, insert string
}

var (
	onSQLite = sagaDB{
		sqlSagas(openSQLite, sqlsaga.SQLite), openSQLite,
		"CREATE TABLE floor (n INTEGER PRIMARY KEY, text TEXT)", "INSERT INTO floor (text) VALUES (?)",
	}
	onServer = sagaDB{
		sqlSagas(openServer, sqlsaga.PostgreSQL), openServer,
		"CREATE TABLE floor (n BIGSERIAL PRIMARY KEY, text TEXT)", "INSERT INTO floor (text) VALUES ($1)",
	}
	onPgx = sagaDB{store: pgxSagas}
)

func openServer(b *testing.B) *sql.DB { return newSchema(b).db }

func sqlSagas(open func(*testing.B) *sql.DB, dialect func() sqlsaga.Dialect) func(*testing.B) saga.Store {
	return func(b *testing.B) saga.Store {
		store, err := sqlsaga.New(open(b), dialect())
		must(b, err)
		must(b, store.Migrate(context.Background()))
		return store
	}
}

func pgxSagas(b *testing.B) saga.Store {
	store, err := pgsaga.New(newSchema(b).pool, pgsaga.Config{})
	must(b, err)
	must(b, store.Migrate(context.Background()))
	return store
}

// byClients divides b.N calls among clients, after a call of each that makes the connections and is not measured.
func byClients(b *testing.B, clients int, one func(n int64) error) {
	var n atomic.Int64
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() { check(b, one(-1-int64(i))) })
	}
	all.Wait()
	b.ReportAllocs()
	b.ResetTimer()
	for range clients {
		all.Go(func() {
			for {
				i := n.Add(1)
				if i > int64(b.N) {
					return
				}
				if err := one(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
}

// commits makes as many durable commits of a row for each saga as a saga has, one after the other: the floor.
func commits(on sagaDB, clients int) func(*testing.B) {
	return func(b *testing.B) {
		commit := on.committer(b)
		byClients(b, clients, func(int64) error {
			for range sagaCommits {
				if err := commit(); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func (on sagaDB) committer(b *testing.B) (commit func() error) {
	b.Helper()
	ctx, db := context.Background(), on.open(b)
	_, err := db.ExecContext(ctx, on.create)
	must(b, err)
	text := strings.Repeat("x", 100)
	return func() error {
		_, err := db.ExecContext(ctx, on.insert, text)
		return err
	}
}

func stored(on sagaDB, clients int, one oneSaga) func(*testing.B) {
	return func(b *testing.B) {
		d := threeSteps(func() {})
		r := running(b, on.store(b), d)
		byClients(b, clients, func(n int64) error { return one(context.Background(), r, d, strconv.FormatInt(n, 10)) })
	}
}

// toFirstStep measures from the call of Start to the first step, one saga at a time with a pause between, and reports a quantile of it as
// the time of an operation. The floor is one durable commit.
func toFirstStep(quantile float64, open func(b *testing.B) (one func(n int) time.Duration)) func(*testing.B) {
	return func(b *testing.B) {
		one := open(b)
		pause := time.NewTicker(5 * time.Millisecond)
		defer pause.Stop()
		all := make([]time.Duration, b.N)
		b.ResetTimer()
		for i := range all {
			<-pause.C
			all[i] = one(i)
		}
		b.StopTimer()
		b.ReportMetric(quantileOf(all, quantile), "ns/op")
	}
}

func oneCommit(b *testing.B) func(int) time.Duration {
	commit := onServer.committer(b)
	return func(int) time.Duration {
		began := time.Now()
		must(b, commit())
		return time.Since(began)
	}
}

func firstStep(b *testing.B) func(int) time.Duration {
	arrived := make(chan time.Time, 1)
	d := threeSteps(func() { arrived <- time.Now() })
	r := running(b, onPgx.store(b), d)
	return func(n int) time.Duration {
		began := time.Now()
		must(b, saga.Start(context.Background(), r, d, strconv.Itoa(n), sagaState{}))
		took := (<-arrived).Sub(began)
		_, err := saga.Wait(context.Background(), r, d, strconv.Itoa(n))
		must(b, err)
		return took
	}
}
