package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

// sagaChild names the environment variable that makes a test function a worker process: its value is the data folder.
const sagaChild = "BACKSTAY_SAGA_CHILD"

// sagaConfig lets a node be missed soon, but not one that a busy machine holds up.
var sagaConfig = saga.Config{Lease: 3 * time.Second, PollMax: 20 * time.Millisecond}

// sagaKillConfig is for nodes that do not last: one that a busy machine holds up is as good as killed.
var sagaKillConfig = saga.Config{Lease: 2 * time.Second, PollMax: 20 * time.Millisecond}

// parcel is the state of the sagas that are killed.
type parcel struct {
	Refused bool
	Seen    string
}

// world is what the steps act upon: a database that is not the store's.
type world struct{ db *sql.DB }

func openWorld(t *testing.T, dir string) world {
	db, err := sqlite.Open(filepath.Join(dir, "effects.db"), sqlite.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.ExecContext(t.Context(), `CREATE TABLE IF NOT EXISTS effects (n INTEGER PRIMARY KEY, id TEXT, what TEXT)`)
	require.NoError(t, err)
	return world{db}
}

// act makes an effect at some moment of a few milliseconds, so that a kill may come before, at or after it.
func (w world) act(ctx context.Context, _ *parcel) error {
	a, _ := saga.Current(ctx)
	<-time.After(rand.N(4 * time.Millisecond))
	_, err := w.db.ExecContext(ctx, `INSERT INTO effects (id, what) VALUES (?, ?)`, a.ID, string(a.Direction)+" "+a.Step)
	<-time.After(rand.N(4 * time.Millisecond))
	return err
}

func (w world) count(t *testing.T) (n int) {
	require.NoError(t, w.db.QueryRowContext(t.Context(), `SELECT count(*) FROM effects`).Scan(&n))
	return n
}

// define is the saga of five steps, of which the fourth refuses some instances: a plain one, a group, one in the store's
// own transaction, the one that refuses, and a plain one.
func (w world) define(t *testing.T) *saga.Definition[parcel] {
	many := saga.Retry{MaxAttempts: 50}
	step := func(name string) saga.Step[parcel] {
		return saga.Step[parcel]{Name: name, Do: w.act, Undo: w.act, Retry: many, UndoRetry: many}
	}
	branch := func(name string) saga.Branch[parcel, string] {
		return saga.Branch[parcel, string]{
			Name:  name,
			Do:    func(ctx context.Context, p parcel) (string, error) { return name, w.act(ctx, &p) },
			Undo:  func(ctx context.Context, p parcel, _ string) error { return w.act(ctx, &p) },
			Merge: func(p *parcel, r string) { p.Seen += r }, Retry: many, UndoRetry: many,
		}
	}
	ledger := saga.Step[parcel]{Name: "3", InTx: true, Do: enter, Undo: enter, Retry: many, UndoRetry: many}
	fourth := step("4")
	fourth.Do = func(ctx context.Context, p *parcel) error {
		if p.Refused {
			return saga.Permanent(errors.New("refused"))
		}
		return w.act(ctx, p)
	}
	d, err := saga.Define("parcel", 1, step("1"), saga.Parallel("2", branch("x"), branch("y"), branch("z")), ledger, fourth, step("5"))
	require.NoError(t, err)
	return d
}

// enter writes to the store's own database, in the transaction of the step.
func enter(ctx context.Context, _ *parcel) error {
	a, _ := saga.Current(ctx)
	_, err := sqlsaga.Tx(ctx).ExecContext(ctx, `INSERT INTO ledger (id, what) VALUES (?, ?)`, a.ID, string(a.Direction))
	<-time.After(rand.N(2 * time.Millisecond))
	return err
}

// spawn runs the test function name as a process of its own and returns its output. The process is killed at the latest
// when the test ends.
func spawn(t *testing.T, name, dir string) (*exec.Cmd, *bufio.Reader) {
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$")
	cmd.Env = append(os.Environ(), sagaChild+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { kill(t, cmd) })
	return cmd, bufio.NewReader(out)
}

func kill(t *testing.T, cmd *exec.Cmd) {
	if cmd.ProcessState != nil {
		return
	}
	if err := cmd.Process.Kill(); err != nil {
		require.ErrorIs(t, err, os.ErrProcessDone)
	}
	_ = cmd.Wait() // it says that it was killed
}

func line(t *testing.T, r io.Reader, want string) {
	got, err := r.(*bufio.Reader).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, want, strings.TrimSpace(got))
}

// until polls a condition that another process brings about.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !cond(); <-tick.C {
		require.True(t, time.Now().Before(end), "not within a minute: %s", what)
	}
}

// TestSagaWorker is the body of the process that TestF18_KillsInEveryStepRepeatAtMostOnceAndLoseNothing kills.
func TestSagaWorker(t *testing.T) {
	dir := os.Getenv(sagaChild)
	if dir == "" {
		return
	}
	store, _ := sagaStore(t, filepath.Join(dir, "saga.db"))
	r, err := saga.NewRunner(store, sagaKillConfig, openWorld(t, dir).define(t))
	require.NoError(t, err)
	require.NoError(t, r.Run(t.Context()))
}

// Processes die in the middle of steps, commits and compensation; every instance ends as it should, every step is done,
// and repeated at most once for each death.
func TestF18_KillsInEveryStepRepeatAtMostOnceAndLoseNothing(t *testing.T) {
	kills, effects, underWay := 50, 40, 500
	if os.Getenv("BACKSTAY_LONG") == "1" {
		kills, effects = 1000, 240 // some 10,000 instances
	}
	dir := t.TempDir()
	store, db := sagaStore(t, filepath.Join(dir, "saga.db"))
	_, err := db.ExecContext(t.Context(), `CREATE TABLE ledger (id TEXT, what TEXT, PRIMARY KEY (id, what))`)
	require.NoError(t, err)
	w := openWorld(t, dir)
	d := w.define(t)
	r, err := saga.NewRunner(store, sagaKillConfig, d)
	require.NoError(t, err)
	instances, deaths := 0, 0
	for hit := 0; hit < kills; deaths++ {
		require.Less(t, deaths, 5*kills, "everything was over before the kills")
		for left := unended(t, db); left < underWay; left++ {
			require.NoError(t, saga.Start(t.Context(), r, d, fmt.Sprint("p", instances), parcel{Refused: instances%3 == 0}))
			instances++
		}
		before := w.count(t)
		child, _ := spawn(t, "TestSagaWorker", dir)
		until(t, "progress", func() bool { return w.count(t) > before+rand.IntN(effects) })
		kill(t, child)
		if unended(t, db) > 0 {
			hit++
		}
	}
	left, last := unended(t, db), time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- r.Run(ctx) }()
	until(t, "all instances have ended", func() bool { return unended(t, db) == 0 })
	took := time.Since(last)
	repeats := 0
	for i := range instances {
		id := fmt.Sprint("p", i)
		res, err := saga.Wait(t.Context(), r, d, id)
		entries := texts(t, db, `SELECT what FROM ledger WHERE id = ? ORDER BY what`, id)
		require.Equal(t, "xyz", res.State.Seen)
		if i%3 == 0 {
			require.ErrorIs(t, err, saga.ErrCompensated)
			require.Equal(t, []string{"do", "undo"}, entries)
		} else {
			require.NoError(t, err)
			require.Equal(t, []string{"do"}, entries)
		}
		repeats += w.verify(t, id, i%3 == 0, deaths)
	}
	cancel()
	require.NoError(t, <-stopped)
	require.LessOrEqual(t, repeats, deaths*r.Config().Concurrency*3) // a group has three under way
	t.Logf("%d kills, %d instances, %d steps repeated; the last %d had ended %v after the last kill", deaths, instances, repeats, left, took)
}

// unended counts the instances that have not ended.
func unended(t *testing.T, db *sql.DB) (n int) {
	require.NoError(t, db.QueryRowContext(t.Context(),
		`SELECT count(*) FROM backstay_sagas WHERE status IN ('running', 'compensating')`).Scan(&n))
	return n
}

// verify checks the effects of one instance and returns how many were repeated.
func (w world) verify(t *testing.T, id string, refused bool, kills int) (repeats int) {
	effects := texts(t, w.db, `SELECT what FROM effects WHERE id = ? ORDER BY n`, id)
	counts := map[string]int{}
	var order []string // of first occurrences, the branches of the group as one
	for _, what := range effects {
		if counts[what]++; counts[what] > 1 {
			repeats++
			require.LessOrEqual(t, counts[what], kills+1, "%s of %s", what, id)
			continue
		}
		what, _, _ = strings.Cut(what, "/")
		if len(order) == 0 || order[len(order)-1] != what {
			order = append(order, what)
		}
	}
	for _, name := range []string{"do 2/x", "do 2/y", "do 2/z"} {
		require.NotZero(t, counts[name], id)
	}
	switch {
	case !refused:
		require.Equal(t, []string{"do 1", "do 2", "do 4", "do 5"}, order, id)
	case counts["undo 4"] > 0: // a node was lost while it tried the fourth step
		require.Equal(t, []string{"do 1", "do 2", "undo 4", "undo 2", "undo 1"}, order, id)
	default:
		require.Equal(t, []string{"do 1", "do 2", "undo 2", "undo 1"}, order, id)
	}
	if refused {
		for _, name := range []string{"undo 2/x", "undo 2/y", "undo 2/z"} {
			require.NotZero(t, counts[name], id)
		}
	}
	return repeats
}

// napping defines a saga whose step says that it has begun and then waits until the file "go" is there.
func napping(t *testing.T, dir string, wait bool) *saga.Definition[parcel] {
	d, err := saga.Define("nap", 1, saga.Step[parcel]{Name: "nap", Do: func(context.Context, *parcel) error {
		if wait {
			fmt.Println("begun")
			until(t, "go", func() bool { _, err := os.Stat(filepath.Join(dir, "go")); return err == nil })
		}
		return nil
	}})
	require.NoError(t, err)
	return d
}

// TestSagaSleeper is the body of the process that TestF26_APausedNodeThatLostItsLeaseRecordsNothing pauses.
func TestSagaSleeper(t *testing.T) {
	dir := os.Getenv(sagaChild)
	if dir == "" {
		return
	}
	store, _ := sagaStore(t, filepath.Join(dir, "saga.db"))
	r, err := saga.NewRunner(store, sagaConfig, napping(t, dir, true))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- r.Run(ctx) }()
	until(t, "the lease is lost", func() bool { return r.Stats().Lost > 0 })
	cancel()
	require.NoError(t, <-stopped)
	fmt.Println("lost")
}

func TestF26_APausedNodeThatLostItsLeaseRecordsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, db := sagaStore(t, filepath.Join(dir, "saga.db"))
	d := napping(t, dir, false)
	r, err := saga.NewRunner(store, sagaConfig, d)
	require.NoError(t, err)
	require.NoError(t, saga.Start(t.Context(), r, d, "1", parcel{}))
	child, out := spawn(t, "TestSagaSleeper", dir)
	line(t, out, "begun")
	require.NoError(t, child.Process.Signal(syscall.SIGSTOP))

	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- r.Run(ctx) }()
	_, err = saga.Wait(t.Context(), r, d, "1")
	require.NoError(t, err)
	cancel()
	require.NoError(t, <-stopped)
	before := dump(t, db)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	require.NoError(t, child.Process.Signal(syscall.SIGCONT))
	line(t, out, "lost")
	require.Equal(t, before, dump(t, db))
}

// The lease of a node may end without its knowing, if the store's clock is put forward: then the fence alone refuses its result.
func TestF26_TheFenceRefusesANodeThatKnowsNothing(t *testing.T) {
	t.Parallel()
	store, db := sagaStore(t, sagaFile(t))
	begun, release := make(chan struct{}), make(chan struct{})
	step := func(do func()) *saga.Definition[parcel] {
		return saga.MustDefine("nap", 1, saga.Step[parcel]{Name: "nap", Do: func(context.Context, *parcel) error { do(); return nil }})
	}
	slow, quick := step(func() { close(begun); <-release }), step(func() {})
	// No heartbeat tells before the result is there, and a node that is busy with it does not claim it again.
	cfg := saga.Config{Lease: time.Minute, PollMax: 20 * time.Millisecond, Concurrency: 1}
	first := node(t, store, cfg, slow)
	done := sync.OnceFunc(func() { close(release) })
	t.Cleanup(done)
	require.NoError(t, saga.Start(t.Context(), first, slow, "1", parcel{}))
	<-begun
	_, err := db.ExecContext(t.Context(), `UPDATE backstay_sagas SET due_ms = 1`)
	require.NoError(t, err)
	_, err = ended(t, node(t, store, cfg, quick), quick, "1")
	require.NoError(t, err)
	before := dump(t, db)
	done()
	until(t, "the result is refused", func() bool { return first.Stats().Lost == 1 })
	require.Equal(t, before, dump(t, db))
}

// dump is everything in the saga tables.
func dump(t *testing.T, db *sql.DB) []string {
	return texts(t, db, `SELECT concat_ws('|', id, status, step, attempt, owner, token, due_ms, updated_ms, state)
		FROM backstay_sagas UNION ALL SELECT concat_ws('|', saga_id, token, step, attempt, outcome, owner, ended_ms) FROM backstay_saga_events`)
}

// texts reads a query of one column.
func texts(t *testing.T, db *sql.DB, query string, args ...any) (all []string) {
	rows, err := db.QueryContext(t.Context(), query, args...)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	for rows.Next() {
		var text string
		require.NoError(t, rows.Scan(&text))
		all = append(all, text)
	}
	require.NoError(t, rows.Err())
	return all
}

func TestStartTxIsPartOfTheTransaction(t *testing.T) {
	store, db := sagaStore(t, filepath.Join(t.TempDir(), "saga.db"))
	step := saga.Step[parcel]{Name: "a", Do: func(context.Context, *parcel) error { return nil }}
	d, other := saga.MustDefine("parcel", 1, step), saga.MustDefine("other", 1, step)
	begin := func() *sql.Tx {
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		return tx
	}
	tx := begin()
	require.NoError(t, sqlsaga.StartTx(t.Context(), store, tx, d, "1", parcel{}))
	require.NoError(t, tx.Rollback())
	_, _, err := store.Load(t.Context(), "1")
	require.ErrorIs(t, err, saga.ErrNotFound)

	tx = begin()
	require.NoError(t, sqlsaga.StartTx(t.Context(), store, tx, d, "1", parcel{Refused: true}))
	require.NoError(t, sqlsaga.StartTx(t.Context(), store, tx, d, "1", parcel{}))
	require.ErrorIs(t, sqlsaga.StartTx(t.Context(), store, tx, other, "1", parcel{}), saga.ErrExists)
	require.NoError(t, tx.Commit())

	r, err := saga.NewRunner(store, sagaConfig, d)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- r.Run(ctx) }()
	r.Notify()
	res, err := saga.Wait(t.Context(), r, d, "1")
	require.NoError(t, err)
	require.True(t, res.State.Refused)
	cancel()
	require.NoError(t, <-stopped)

	n, err := store.Purge(t.Context(), time.Hour, 10)
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = store.Purge(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Empty(t, dump(t, db))
}

func TestSagaStoresOfDifferentPrefixesAreStrangers(t *testing.T) {
	store, db := sagaStore(t, filepath.Join(t.TempDir(), "saga.db"))
	second, err := sqlsaga.New(db, sqlsaga.SQLite(), sqlsaga.WithPrefix("second_"))
	require.NoError(t, err)
	require.NoError(t, second.Migrate(t.Context()))
	require.NoError(t, second.Migrate(t.Context()))
	in := saga.Instance{ID: "1", Ref: saga.Ref{Name: "x", Version: 1}, Progress: saga.Progress{Status: saga.Running, State: []byte("{}")}}
	created, err := store.Create(t.Context(), in, 0)
	require.NoError(t, err)
	require.True(t, created)
	_, _, err = second.Load(t.Context(), "1")
	require.ErrorIs(t, err, saga.ErrNotFound)

	_, err = sqlsaga.New(nil, sqlsaga.SQLite())
	require.ErrorContains(t, err, "the database is nil")
	_, err = sqlsaga.New(db, sqlsaga.Dialect{})
	require.ErrorContains(t, err, "the dialect is empty")
	_, err = sqlsaga.New(db, sqlsaga.SQLite(), sqlsaga.WithPrefix("Robert'); DROP"))
	require.ErrorContains(t, err, `prefix "Robert'); DROP"`)
}
