package saga_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBoom = errors.New("boom")

// order is the state of the sagas under test.
type order struct{ N int }

// journal notes what the steps do, in the order they do it.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// step notes "name" when it is done and "-name" when it is undone, and then returns what the functions say.
func (j *journal) step(name string, do, undo func(ctx context.Context) error) saga.Step[order] {
	note := func(line string, fn func(context.Context) error) func(context.Context, *order) error {
		return func(ctx context.Context, o *order) error {
			j.add(line)
			o.N++
			if fn == nil {
				return nil
			}
			return fn(ctx)
		}
	}
	return saga.Step[order]{Name: name, Do: note(name, do), Undo: note("-"+name, undo)}
}

// fails returns err for the first n calls; n < 0 means always.
func fails(n int, err error) func(context.Context) error {
	var calls atomic.Int64
	return func(context.Context) error {
		if n < 0 || calls.Add(1) <= int64(n) {
			return err
		}
		return nil
	}
}

func define(t testing.TB, steps ...saga.Step[order]) *saga.Definition[order] {
	t.Helper()
	d, err := saga.Define("order", 1, steps...)
	require.NoError(t, err)
	return d
}

func runner(t testing.TB, store saga.Store, parts ...saga.Part) *saga.Runner {
	t.Helper()
	r, err := saga.NewRunner(store, saga.Config{}, parts...)
	require.NoError(t, err)
	return r
}

// running starts Run, waits until it has begun, and returns the function that stops it and waits for its end.
func running(t testing.TB, r *saga.Runner) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- r.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		require.NoError(t, <-stopped)
	}
}

// play runs one instance of a definition to its end.
func play(t testing.TB, d *saga.Definition[order], parts ...saga.Part) (saga.Result[order], error) {
	t.Helper()
	r := runner(t, memsaga.New(), append(parts, d)...)
	defer running(t, r)()
	require.NoError(t, saga.Start(t.Context(), r, d, "1", order{}))
	return saga.Wait(t.Context(), r, d, "1")
}

func outcomes(history []saga.Event) (list []saga.Outcome) {
	for _, e := range history {
		list = append(list, e.Outcome)
	}
	return list
}

func load(t testing.TB, s saga.Store, id string) saga.Instance {
	t.Helper()
	in, _, err := s.Load(t.Context(), id)
	require.NoError(t, err)
	return in
}

// link is a node's connection to the store, which can be cut.
type link struct {
	saga.Store
	cut atomic.Bool
}

var errCut = errors.New("the store cannot be reached")

func (l *link) Claim(ctx context.Context, c saga.Claim) ([]saga.Instance, error) {
	if l.cut.Load() {
		return nil, errCut
	}
	return l.Store.Claim(ctx, c)
}

func (l *link) Commit(ctx context.Context, ts []saga.Transition) ([]bool, error) {
	if l.cut.Load() {
		return nil, errCut
	}
	return l.Store.Commit(ctx, ts)
}

func (l *link) List(ctx context.Context, f saga.Filter) ([]saga.Instance, error) {
	if l.cut.Load() {
		return nil, errCut
	}
	return l.Store.List(ctx, f)
}

// refusal is a local rejection that may say when to come back.
type refusal struct{ after time.Duration }

func (refusal) Error() string               { return "refused" }
func (refusal) Rejected() bool              { return true }
func (r refusal) RetryAfter() time.Duration { return r.after }
