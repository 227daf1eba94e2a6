package cache_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

var errDown = errors.New("store down")

// flaky is a store that fails while it is down.
type flaky struct {
	cache.Store[string, int]
	down     atomic.Bool
	released atomic.Int64
}

func (f *flaky) err() error {
	if f.down.Load() {
		return errDown
	}
	return nil
}

func (f *flaky) Get(ctx context.Context, k string) (cache.Entry[int], bool, error) {
	e, ok, err := f.Store.Get(ctx, k)
	return e, ok, errors.Join(err, f.err())
}

func (f *flaky) Lease(ctx context.Context, k string) (cache.Entry[int], cache.Lease[int], error) {
	if err := f.err(); err != nil {
		return cache.Entry[int]{}, nil, err
	}
	e, l, err := f.Store.Lease(ctx, k)
	if l != nil {
		l = flakyLease{l, f}
	}
	return e, l, err
}

func (f *flaky) Set(ctx context.Context, k string, e cache.Entry[int]) error {
	return errors.Join(f.Store.Set(ctx, k, e), f.err())
}

func (f *flaky) Delete(ctx context.Context, k string) error {
	return errors.Join(f.Store.Delete(ctx, k), f.err())
}

type flakyLease struct {
	cache.Lease[int]
	f *flaky
}

func (l flakyLease) Fill(ctx context.Context, e cache.Entry[int]) (bool, error) {
	if err := l.f.err(); err != nil {
		return false, err
	}
	return l.Lease.Fill(ctx, e)
}

func (l flakyLease) Release(ctx context.Context) error {
	l.f.released.Add(1)
	return errors.Join(ctx.Err(), l.Lease.Release(ctx))
}

func TestGetLoadsWhileTheStoreIsDown(t *testing.T) {
	var loads atomic.Int64
	f := &flaky{Store: cache.NewMemory[string, int](t, 10)}
	c := open(t, func(context.Context, string) (int, error) { return int(loads.Add(1)), nil },
		cache.Config{Name: "users"}, cache.WithStore(f))

	f.down.Store(true)
	for want := 1; want <= 3; want++ {
		v, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, want, v)
	}
	require.EqualValues(t, 6, c.Stats().StoreFailures, "Get and Lease, three times")

	err := c.Set(t.Context(), "k", 10)
	require.ErrorIs(t, err, cache.ErrStore)
	require.ErrorIs(t, err, errDown)
	require.EqualError(t, err, `cache "users": store failed: store down`)
	require.ErrorIs(t, c.Delete(t.Context(), "k"), cache.ErrStore)

	f.down.Store(false)
	for range 3 {
		v, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, 4, v)
	}
}

func TestFillThatFailsIsNoFailureOfGet(t *testing.T) {
	f := &flaky{Store: cache.NewMemory[string, int](t, 10)}
	c := open(t, func(context.Context, string) (int, error) {
		f.down.Store(true)
		return 1, nil
	}, cache.Config{}, cache.WithStore(f))
	v, err := c.Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, 1, v)
	require.EqualValues(t, 1, c.Stats().StoreFailures)
}

// A lease that is not given back would keep other processes from loading until it lapses.
func TestFailedLoadReleasesTheLease(t *testing.T) {
	f := &flaky{Store: cache.NewMemory[string, int](t, 10)}
	crash := func() error { return errDown }
	c := open(t, func(context.Context, string) (int, error) { return 0, crash() },
		cache.Config{LoadTimeout: time.Hour}, cache.WithStore(f))
	_, err := c.Get(t.Context(), "k")
	require.ErrorIs(t, err, errDown)
	require.EqualValues(t, 1, f.released.Load())
	crash = func() error { panic("boom") }
	_, err = c.Get(t.Context(), "k")
	require.Error(t, err)
	require.EqualValues(t, 2, f.released.Load())
	require.Zero(t, c.Stats().StoreFailures)
}

func TestStoreThatPanicsIsAnError(t *testing.T) {
	c := open(t, func(context.Context, string) (int, error) { return 1, nil },
		cache.Config{}, cache.WithStore(panicking{cache.NewMemory[string, int](t, 10)}))
	var p *cache.PanicError
	_, err := c.Get(t.Context(), "k")
	require.ErrorAs(t, err, &p)
}

type panicking struct{ cache.Store[string, int] }

func (panicking) Lease(context.Context, string) (cache.Entry[int], cache.Lease[int], error) {
	panic("boom")
}

func TestTimedOutLoadReleasesTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flaky{Store: cache.NewMemory[string, int](t, 10)}
		c := open(t, func(ctx context.Context, _ string) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}, cache.Config{}, cache.WithStore(f))
		_, err := c.Get(t.Context(), "k")
		require.ErrorIs(t, err, cache.ErrLoadTimeout)
		require.EqualValues(t, 1, f.released.Load())
		require.Zero(t, c.Stats().StoreFailures, "the lease was released on the context that had ended")
	})
}

// A flight that a write has taken out must leave its successor joinable when it ends.
func TestForgottenLoadLeavesItsSuccessorAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := open(t, func(context.Context, string) (int64, error) {
			time.Sleep(time.Second)
			return loads.Add(1), nil
		}, cache.Config{})
		get := func() { _, _ = c.Get(t.Context(), "k") }
		go get()
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, c.Delete(t.Context(), "k"))
		go get()
		time.Sleep(700 * time.Millisecond) // the first load has ended, the second has not
		get()
		require.EqualValues(t, 2, loads.Load())
	})
}

// paused is a store that stops where a test wants it to.
type paused struct {
	cache.Store[string, string]
	beforeDelete func()
	beforeLease  func()
	afterHit     func()
	afterFill    func()
}

func (p *paused) Delete(ctx context.Context, k string) error {
	p.beforeDelete()
	return p.Store.Delete(ctx, k)
}

func (p *paused) Lease(ctx context.Context, k string) (cache.Entry[string], cache.Lease[string], error) {
	p.beforeLease()
	e, l, err := p.Store.Lease(ctx, k)
	if l == nil {
		p.afterHit()
		return e, nil, err
	}
	return e, pausedLease{l, p}, err
}

type pausedLease struct {
	cache.Lease[string]
	p *paused
}

func (l pausedLease) Fill(ctx context.Context, e cache.Entry[string]) (bool, error) {
	ok, err := l.Lease.Fill(ctx, e)
	l.p.afterFill()
	return ok, err
}

// TestGetAfterDeleteJoinsNoFlightThatSawTheOldEntry starts a Get while the store is about to delete. Were flights
// forgotten before the store's Delete, that Get would find what an older load has just stored, and a Get that
// begins after the Delete returned would join it.
func TestGetAfterDeleteJoinsNoFlightThatSawTheOldEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn, filled, resume := make(chan struct{}), make(chan struct{}), make(chan struct{})
		letLoad := sync.OnceFunc(func() { close(goOn) })
		var leases, loads atomic.Int64
		s := &paused{Store: cache.NewMemory[string, string](t, 10)}
		c := open(t, func(context.Context, string) (string, error) {
			if loads.Add(1) == 1 {
				<-goOn
				return "old", nil
			}
			return "new", nil
		}, cache.Config{}, cache.WithStore(s))
		s.beforeLease = func() {
			if leases.Add(1) == 2 {
				letLoad()
				<-filled
			}
		}
		s.afterFill = sync.OnceFunc(func() { close(filled) })
		s.afterHit = func() { <-resume }
		s.beforeDelete = func() {
			go func() { _, _ = c.Get(t.Context(), "k") }()
			synctest.Wait()
			letLoad()
		}

		go func() { _, _ = c.Get(t.Context(), "k") }()
		synctest.Wait()
		require.NoError(t, c.Delete(t.Context(), "k"))
		got := make(chan string, 1)
		go func() {
			v, _ := c.Get(t.Context(), "k")
			got <- v
		}()
		synctest.Wait()
		close(resume)
		require.Equal(t, "new", <-got)
	})
}
