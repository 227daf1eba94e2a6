package sagafault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/saga"
)

// trace notes what the steps of a test's sagas do, in the order they do it.
type trace struct {
	mu    sync.Mutex
	lines []string
}

func (tr *trace) add(line string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.lines = append(tr.lines, line)
}

func (tr *trace) all() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.lines)
}

func (tr *trace) clear() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.lines = nil
}

// step notes its name, with a minus for its Undo, and then does what the functions say.
func (tr *trace) step(name string, do, undo func(ctx context.Context) error) saga.Step[parcel] {
	note := func(line string, fn func(context.Context) error) func(context.Context, *parcel) error {
		return func(ctx context.Context, _ *parcel) error {
			tr.add(line)
			if fn == nil {
				return nil
			}
			return fn(ctx)
		}
	}
	return saga.Step[parcel]{Name: name, Do: note(name, do), Undo: note("-"+name, undo), Retry: saga.Retry{Initial: time.Millisecond},
		UndoRetry: saga.Retry{Initial: time.Millisecond, Max: 10 * time.Millisecond}}
}

var errRefused = saga.Permanent(errors.New("refused"))

func refuses(context.Context) error { return errRefused }

func defined(t *testing.T, steps ...saga.Step[parcel]) *saga.Definition[parcel] {
	d, err := saga.Define("case", 1, steps...)
	require.NoError(t, err)
	return d
}

// ended waits for the end of an instance.
func ended(t *testing.T, r *saga.Runner, d *saga.Definition[parcel], id string) (saga.Result[parcel], error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return saga.Wait(ctx, r, d, id)
}

// severed is a store whose connection can be cut.
type severed struct {
	saga.Store
	cut atomic.Bool
}

var errSevered = errors.New("the store cannot be reached")

func (s *severed) Claim(ctx context.Context, c saga.Claim) ([]saga.Instance, error) {
	if s.cut.Load() {
		return nil, errSevered
	}
	return s.Store.Claim(ctx, c)
}

func (s *severed) Commit(ctx context.Context, ts []saga.Transition) ([]bool, error) {
	if s.cut.Load() {
		return nil, errSevered
	}
	return s.Store.Commit(ctx, ts)
}

// undoing defines a saga whose first Undo says that it has begun and then waits, in the process that is killed.
func undoing(t *testing.T, tr *trace, hang bool) *saga.Definition[parcel] {
	return defined(t, tr.step("a", nil, func(context.Context) error {
		if hang {
			fmt.Println("undoing")
			<-make(chan struct{})
		}
		return nil
	}), tr.step("b", refuses, nil))
}

// TestSagaUndoer is the body of the process that TestF19_AKillDuringCompensation kills.
func TestSagaUndoer(t *testing.T) {
	url := os.Getenv(sagaChild)
	if url == "" {
		return
	}
	store, _ := childDriver().sagaStore(t, url)
	r, err := saga.NewRunner(store, sagaConfig, undoing(t, &trace{}, true))
	require.NoError(t, err)
	require.NoError(t, r.Run(t.Context()))
}

func TestF19_AKillDuringCompensation(t *testing.T) { onBoth(t, f19) }

func f19(t *testing.T, on driver) {
	t.Parallel()
	url := pgtest.Database(t)
	store, _ := on.sagaStore(t, url)
	var tr trace
	d := undoing(t, &tr, false)
	starter, err := saga.NewRunner(store, sagaConfig, d)
	require.NoError(t, err)
	require.NoError(t, saga.Start(t.Context(), starter, d, "1", parcel{}))
	child, out := spawn(t, on, "TestSagaUndoer", url)
	line(t, out, "undoing")
	kill(t, child)
	r := node(t, store, sagaConfig, d)
	res, err := ended(t, r, d, "1")
	require.ErrorIs(t, err, saga.ErrCompensated)
	require.Equal(t, []string{"-a"}, tr.all(), "the rest was done by the process that died")
	require.Equal(t, 2, res.History[len(res.History)-1].Attempt, "the attempt that was cut short counts")
}

func TestF20_CompensationThatKeepsFailingIsStuckUntilItIsRepaired(t *testing.T) { onBoth(t, f20) }

func f20(t *testing.T, on driver) {
	t.Parallel()
	store, _ := on.newStore(t)
	var tr trace
	var healed atomic.Bool
	calls := 0
	d := defined(t, tr.step("a", nil, func(context.Context) error {
		if healed.Load() {
			return nil
		}
		return errors.New("out of order")
	}), tr.step("b", nil, func(context.Context) error {
		if calls++; calls < 5 {
			return errors.New("not yet")
		}
		return nil
	}), tr.step("c", refuses, nil))
	r := node(t, store, sagaConfig, d)
	require.NoError(t, saga.Start(t.Context(), r, d, "1", parcel{}))
	_, err := ended(t, r, d, "1")
	require.ErrorIs(t, err, saga.ErrStuck)
	require.ErrorContains(t, err, "out of order")
	stuck, err := r.List(t.Context(), saga.Filter{Statuses: []saga.Status{saga.Stuck}})
	require.NoError(t, err)
	require.Equal(t, "1", stuck[0].ID)
	healed.Store(true)
	require.NoError(t, r.Retry(t.Context(), "1"))
	_, err = ended(t, r, d, "1")
	require.ErrorIs(t, err, saga.ErrCompensated)
	require.Len(t, tr.all(), 3+5+20+1)
}

// A Do that outlives its lease must not make its effect after the Undo: the receiver of the call sees by DoKey that it was
// undone already.
func TestF21_AnActionThatComesAfterItsCompensationHasNoEffect(t *testing.T) { onBoth(t, f21) }

func f21(t *testing.T, on driver) {
	t.Parallel()
	store, _ := on.newStore(t)
	cable := &severed{Store: store}
	release, late := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	effects, undone := map[string]bool{}, map[string]bool{} // what the receiver keeps
	b := saga.Step[parcel]{Name: "b", Timeout: -1, Retry: saga.Retry{MaxAttempts: 1},
		Do: func(ctx context.Context, _ *parcel) error {
			defer close(late)
			cable.cut.Store(true)
			<-release // it does not heed its context
			mu.Lock()
			defer mu.Unlock()
			if !undone[saga.IdempotencyKey(ctx)] {
				effects[saga.IdempotencyKey(ctx)] = true
			}
			return nil
		},
		Undo: func(ctx context.Context, _ *parcel) error {
			a, _ := saga.Current(ctx)
			mu.Lock()
			defer mu.Unlock()
			undone[a.DoKey()] = true
			delete(effects, a.DoKey())
			return nil
		}}
	d := defined(t, b)
	cfg := saga.Config{Lease: 2 * time.Second, PollMax: 20 * time.Millisecond}
	cutOff := node(t, cable, cfg, d)
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	require.NoError(t, saga.Start(t.Context(), cutOff, d, "1", parcel{}))
	until(t, "the attempt begins", cable.cut.Load)
	healthy := node(t, store, cfg, d)
	_, err := ended(t, healthy, d, "1")
	require.ErrorIs(t, err, saga.ErrCompensated)
	before, history, err := store.Load(t.Context(), "1")
	require.NoError(t, err)
	cable.cut.Store(false)
	release <- struct{}{}
	<-late
	mu.Lock()
	require.Empty(t, effects)
	mu.Unlock()
	until(t, "the late result is dropped", func() bool { return cutOff.Stats().Lost == 1 })
	after, now, err := store.Load(t.Context(), "1")
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Equal(t, history, now)
}

func TestF22_AResultThatComesWithTheDeadlineStands(t *testing.T) { onBoth(t, f22) }

func f22(t *testing.T, on driver) {
	t.Parallel()
	for name, last := range map[string]bool{"last step": true, "not the last": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, _ := on.newStore(t)
			var tr trace
			steps := []saga.Step[parcel]{tr.step("a", nil, nil), tr.step("b", func(ctx context.Context) error { <-ctx.Done(); return nil }, nil)}
			want := []string{"a", "b"}
			if !last {
				steps = append(steps, tr.step("c", nil, nil))
				want = []string{"a", "b", "-b", "-a"}
			}
			d, err := defined(t, steps...).WithLimits(saga.Limits{Deadline: 2 * time.Second})
			require.NoError(t, err)
			r := node(t, store, sagaConfig, d)
			for try := 0; ; try++ {
				tr.clear()
				id := fmt.Sprint(try)
				require.NoError(t, saga.Start(t.Context(), r, d, id, parcel{}))
				res, err := ended(t, r, d, id)
				if len(res.History) < 2 || res.History[1].Step != "b" || res.History[1].Attempt == 0 || res.History[1].Error != "" {
					require.Less(t, try, 10, "the machine never came to the second step within the deadline: %v", err)
					continue // it stood still for longer than the deadline
				}
				if last {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, saga.ErrCompensated)
					require.ErrorContains(t, err, "deadline")
				}
				require.Equal(t, want, tr.all())
				require.Equal(t, saga.Done, res.History[1].Outcome)
				return
			}
		})
	}
}

func TestF23_ABranchFailsWhileItsSiblingsRun(t *testing.T) { onBoth(t, f23) }

func f23(t *testing.T, on driver) {
	t.Parallel()
	store, _ := on.newStore(t)
	var tr trace
	under := make(chan struct{})
	branch := func(name string, do func(ctx context.Context) error) saga.Branch[parcel, string] {
		return saga.Branch[parcel, string]{
			Name: name,
			Do:   func(ctx context.Context, _ parcel) (string, error) { return "result of " + name, do(ctx) },
			Undo: func(_ context.Context, _ parcel, r string) error { tr.add("-" + name + ": " + r); return nil },
		}
	}
	d := defined(t, tr.step("a", nil, nil), saga.Parallel("group",
		branch("done", func(context.Context) error { return nil }),
		branch("cut", func(ctx context.Context) error { close(under); <-ctx.Done(); return ctx.Err() }),
		branch("fails", func(context.Context) error { <-under; return errRefused })))
	r := node(t, store, sagaConfig, d)
	require.NoError(t, saga.Start(t.Context(), r, d, "1", parcel{}))
	_, err := ended(t, r, d, "1")
	require.ErrorIs(t, err, saga.ErrCompensated)
	require.Equal(t, []string{"a", "-cut: ", "-done: result of done", "-a"}, tr.all())
}

func TestF24_ARollingDeployWithInstancesInFlight(t *testing.T) { onBoth(t, f24) }

func f24(t *testing.T, on driver) {
	t.Parallel()
	store, _ := on.newStore(t)
	var old, young trace
	gate := saga.Await("gate", "go", 0, func(context.Context, *parcel, int) error { return nil })
	v1, err := saga.Define("case", 1, old.step("a", nil, nil), gate, old.step("b", nil, nil))
	require.NoError(t, err)
	v2, err := saga.Define("case", 2, young.step("a", nil, nil), gate, young.step("new", nil, nil))
	require.NoError(t, err)
	first, err := saga.NewRunner(store, sagaConfig, v1)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- first.Run(ctx) }()
	require.NoError(t, saga.Start(t.Context(), first, v1, "old", parcel{}))
	until(t, "v1 waits", func() bool { in, _, err := store.Load(t.Context(), "old"); return err == nil && in.Awaits == "go" })
	cancel()
	require.NoError(t, <-stopped)

	lacking := node(t, store, sagaConfig, v2) // a node without the old version leaves it, and shows it
	require.NoError(t, saga.Start(t.Context(), lacking, v2, "young", parcel{}))
	for _, id := range []string{"old", "young"} {
		require.NoError(t, saga.Send(t.Context(), lacking, id, "go", 1))
	}
	_, err = ended(t, lacking, v2, "young")
	require.NoError(t, err)
	unknown, err := lacking.Unknown(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, unknown, 1)
	require.Equal(t, "old", unknown[0].ID)
	require.Equal(t, []string{"a"}, old.all())

	both := node(t, store, sagaConfig, v1, v2)
	_, err = ended(t, both, v1, "old")
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, old.all())
	require.Equal(t, []string{"a", "new"}, young.all())
}

func TestF25_ANodeOfAnotherNameTakesOver(t *testing.T) { onBoth(t, f25) }

func f25(t *testing.T, on driver) {
	t.Parallel()
	store, _ := on.newStore(t)
	var tr trace
	d := defined(t, tr.step("a", nil, nil), tr.step("b", nil, nil))
	in, err := d.NewInstance("1", parcel{})
	require.NoError(t, err)
	in.Owner = "a host that is gone"
	_, err = store.Create(t.Context(), in, 2*time.Second)
	require.NoError(t, err)
	r := node(t, store, saga.Config{Name: "of another name", PollMax: 20 * time.Millisecond}, d)
	res, err := ended(t, r, d, "1")
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, tr.all())
	require.Equal(t, 2, res.History[0].Attempt)
}

func TestF27_CompensationRunsAlthoughTheCallerIsGone(t *testing.T) { onBoth(t, f27) }

func f27(t *testing.T, on driver) {
	t.Parallel()
	store, _ := on.newStore(t)
	var tr trace
	ctx, cancel := context.WithCancel(t.Context())
	d := defined(t, tr.step("a", nil, func(ctx context.Context) error { return ctx.Err() }),
		tr.step("b", func(context.Context) error { cancel(); return errRefused }, nil))
	r := node(t, store, sagaConfig, d)
	_, err := saga.Execute(ctx, r, d, "1", parcel{})
	require.Error(t, err)
	_, err = ended(t, r, d, "1")
	require.ErrorIs(t, err, saga.ErrCompensated)
	require.Equal(t, []string{"a", "b", "-a"}, tr.all())
}

func TestF28_AStateThatCannotBeDecodedIsStuckAndShown(t *testing.T) { onBoth(t, f28) }

func f28(t *testing.T, on driver) {
	t.Parallel()
	store, db := on.newStore(t)
	var tr trace
	d := defined(t, tr.step("a", nil, nil))
	starter, err := saga.NewRunner(store, sagaConfig, d)
	require.NoError(t, err)
	for _, id := range []string{"state", "fine"} {
		require.NoError(t, saga.Start(t.Context(), starter, d, id, parcel{}))
	}
	_, err = db.ExecContext(t.Context(), `UPDATE backstay_sagas SET state = '{"Refused":' WHERE id = 'state'`)
	require.NoError(t, err)
	r := node(t, store, sagaConfig, d)
	_, err = ended(t, r, d, "fine")
	require.NoError(t, err)
	_, err = ended(t, r, d, "state")
	require.ErrorIs(t, err, saga.ErrStuck)
	require.ErrorContains(t, err, "cannot be decoded")
	require.Equal(t, []string{"a"}, tr.all())
	_, err = db.ExecContext(t.Context(), `UPDATE backstay_sagas SET state = '{}' WHERE id = 'state'`)
	require.NoError(t, err)
	require.NoError(t, r.Retry(t.Context(), "state"))
	_, err = ended(t, r, d, "state")
	require.NoError(t, err)
}

// The database turns read-only, as one whose disk is full or that has become a standby: errors are counted, nothing is lost, and it goes
// on by itself.
func TestF29_AReadOnlyDatabaseHoldsUpAndLosesNothing(t *testing.T) { onBoth(t, f29) }

func f29(t *testing.T, on driver) {
	t.Parallel()
	url := pgtest.Database(t)
	store, _ := on.sagaStore(t, url)
	admin := openDB(t, url+"&default_transaction_read_only=off")
	readOnly := func(on bool) {
		name := texts(t, admin, `SELECT current_database()`)[0]
		_, err := admin.ExecContext(t.Context(), fmt.Sprintf(`ALTER DATABASE "%s" SET default_transaction_read_only = %t`, name, on))
		require.NoError(t, err)
		texts(t, admin, `SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`)
	}
	var tr trace
	var once sync.Once
	d := defined(t, tr.step("a", func(context.Context) error {
		once.Do(func() { readOnly(true) })
		return nil
	}, nil), tr.step("b", nil, nil), tr.step("c", nil, nil))
	r := node(t, store, sagaConfig, d)
	require.NoError(t, saga.Start(t.Context(), r, d, "1", parcel{}))
	until(t, "errors are counted", func() bool { return r.Stats().StoreErrors > 2 })
	require.Equal(t, []string{"a"}, tr.all())
	require.Error(t, saga.Start(t.Context(), r, d, "2", parcel{}), "what cannot be stored is refused")
	readOnly(false)
	_, err := ended(t, r, d, "1")
	require.NoError(t, err)
	all := tr.all()
	require.Equal(t, []string{"a", "b", "c"}, slices.Compact(all))
	require.LessOrEqual(t, len(all), 4, "at most the step whose lease ran out meanwhile is repeated")
}

func TestF30_StartingTwiceWithOneKeyIsOneInstance(t *testing.T) { onBoth(t, f30) }

func f30(t *testing.T, on driver) {
	t.Parallel()
	store, db := on.newStore(t)
	var tr trace
	d := defined(t, tr.step("a", nil, nil))
	nodes := []*saga.Runner{node(t, store, sagaConfig, d), node(t, store, sagaConfig, d)}
	var starters sync.WaitGroup
	var failed atomic.Int64
	for i := range 16 {
		starters.Go(func() {
			if err := saga.Start(t.Context(), nodes[i%2], d, "1", parcel{}); err != nil {
				failed.Add(1)
			}
		})
	}
	starters.Wait()
	require.Zero(t, failed.Load())
	_, err := ended(t, nodes[0], d, "1")
	require.NoError(t, err)
	require.NoError(t, saga.Start(t.Context(), nodes[1], d, "1", parcel{}))
	require.Equal(t, []string{"a"}, tr.all())
	require.Equal(t, 1, number(t, db, `SELECT count(*) FROM backstay_sagas`))
}
