package bulkhead_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/backstay-go/backstay/bulkhead"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func acquire(t *testing.T, b *bulkhead.Bulkhead) *bulkhead.Permit {
	t.Helper()
	p, err := b.Acquire(t.Context())
	require.NoError(t, err)
	return &p
}

func TestWithoutAQueueTheNextCallerIsRejectedAtOnce(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Name: "bank", MaxConcurrent: 2})
	first, second := acquire(t, b), acquire(t, b)
	defer second.Abort()
	err := b.Do(t.Context(), func(context.Context) error { t.Error("it ran"); return nil })
	require.ErrorIs(t, err, bulkhead.ErrFull)
	require.EqualError(t, err, `bulkhead "bank" is full: 2 calls run and 0 may wait`)
	var rejection *bulkhead.Error
	require.ErrorAs(t, err, &rejection)
	require.True(t, rejection.Rejected())
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = b.Acquire(context.Background()) }))
	first.Done(nil)
	require.NoError(t, b.Do(t.Context(), func(context.Context) error { return nil }))
}

func TestWaitingCallersAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 10})
		p := acquire(t, b)
		var order []int
		var group sync.WaitGroup
		for i := range 10 {
			group.Go(func() {
				_ = b.Do(context.Background(), func(context.Context) error { order = append(order, i); return nil })
			})
			synctest.Wait() // it is in the queue before the next one comes
		}
		require.Equal(t, bulkhead.Stats{Running: 1, Waiting: 10, Limit: 1}, b.Stats())
		require.ErrorIs(t, b.Do(t.Context(), nil), bulkhead.ErrFull, "the queue is full")
		p.Done(nil)
		group.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, order)
		require.Equal(t, bulkhead.Stats{Limit: 1, Queued: 10, Rejected: 1}, b.Stats())
	})
}

func TestACancelledContextIsNeverAdmitted(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1000, MaxQueue: 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 1000 {
		_, err := b.Acquire(ctx)
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Zero(t, b.Stats().Running)
}

func TestACallerThatLeavesGivesItsPlaceOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 2})
		p := acquire(t, b)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, b.Do(ctx, nil), context.DeadlineExceeded)
		require.Equal(t, bulkhead.Stats{Running: 1, Limit: 1, Left: 1}, b.Stats())

		served := make(chan struct{})
		go func() {
			_ = b.Do(context.Background(), func(context.Context) error { close(served); return nil })
		}()
		synctest.Wait()
		p.Done(nil)
		<-served
		synctest.Wait()
		require.Zero(t, b.Stats().Running)
	})
}

func TestAPermitHandedToALeaverGoesToTheNext(t *testing.T) {
	for name, coincide := range map[string]func(cancel func(), p *bulkhead.Permit){
		"the context ends first":   func(cancel func(), p *bulkhead.Permit) { cancel(); p.Done(nil) },
		"the permit is free first": func(cancel func(), p *bulkhead.Permit) { p.Done(nil); cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for range 1000 { // the leaver may run in the middle of coincide, and use the permit
					if err := leaveInQueue(t, coincide); err != nil {
						require.ErrorIs(t, err, context.Canceled)
						return
					}
				}
				t.Fatal("the leaver always had the permit before its context ended")
			})
		})
	}
}

// leaveInQueue has a caller's context end at the moment when a permit is free for it, and returns what the caller was told.
func leaveInQueue(t *testing.T, coincide func(cancel func(), p *bulkhead.Permit)) error {
	b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 2})
	p := acquire(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	nothing := func(context.Context) error { return nil }
	leaver, next := make(chan error, 1), make(chan error, 1)
	go func() { leaver <- b.Do(ctx, nothing) }()
	synctest.Wait()
	go func() { next <- b.Do(context.Background(), nothing) }()
	synctest.Wait()
	coincide(cancel, p)
	err := <-leaver
	require.NoError(t, <-next)
	require.Zero(t, b.Stats().Running)
	return err
}

// patiences are contexts that end in a second, each with its own error.
var patiences = map[error]func(context.Context) (context.Context, context.CancelFunc){
	context.DeadlineExceeded: func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, time.Second)
	},
	context.Canceled: func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Second, cancel)
		return ctx, cancel
	},
}

// To the caller it is the same whether its own time or QueueTimeout was over first: nothing ran.
func TestACallerWhoseTimeEndsInTheQueueWasRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Name: "bank", MaxConcurrent: 3, MaxQueue: 2})
		for range 3 {
			defer acquire(t, b).Abort()
		}
		for ended, patience := range patiences {
			ctx, cancel := patience(t.Context())
			defer cancel()
			_, err := b.Acquire(ctx)
			require.ErrorIs(t, err, ended)
			require.ErrorIs(t, err, bulkhead.ErrFull)
			rejection, ok := err.(*bulkhead.Error)
			require.True(t, ok)
			require.True(t, rejection.Rejected())
			require.False(t, rejection.Permanent())
			require.EqualError(t, err,
				`bulkhead "bank" is full: none of its 3 permits came free in time for a caller that waited: `+ended.Error())

			_, err = b.Acquire(ctx)
			require.Equal(t, ended, err, "done already: it is not the bulkhead that refuses")
		}
		require.Equal(t, bulkhead.Stats{Running: 3, Limit: 3, Left: 2}, b.Stats())
		_, err := bulkhead.New(bulkhead.Config{MaxConcurrent: 1}).AcquireN(t.Context(), 2)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestAFullQueueRejectsWithoutAllocating(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 1})
		p := acquire(t, b)
		go func() { _ = b.Do(context.Background(), func(context.Context) error { return nil }) }()
		synctest.Wait()
		ctx := context.Background()
		require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = b.Acquire(ctx) }))
		require.EqualValues(t, 101, b.Stats().Rejected)
		p.Done(nil)
	})
}

func TestCallersThatComeAtOnceDoNotOverfillTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 3})
		for range 300 {
			p := acquire(t, b)
			start := make(chan struct{})
			var callers sync.WaitGroup
			for range 16 {
				callers.Go(func() {
					<-start
					_ = b.Do(context.Background(), func(context.Context) error { return nil })
				})
			}
			close(start)
			synctest.Wait()
			require.Equal(t, 3, b.Stats().Waiting)
			p.Done(nil)
			callers.Wait()
		}
		require.EqualValues(t, 300*3, b.Stats().Queued)
	})
}

func TestTenThousandCallersThatComeAndGoLeaveItEmpty(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{MaxConcurrent: 7, MaxQueue: 10_000, QueueTimeout: time.Millisecond})
	var running, over atomic.Int64
	var callers sync.WaitGroup
	for i := range 10_000 {
		callers.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if i%4 == 0 {
				go cancel()
			}
			weight := 1 + i%3
			p, err := b.AcquireN(ctx, weight)
			if err != nil {
				return
			}
			defer p.Abort()
			if running.Add(int64(weight)) > 7 {
				over.Add(1)
			}
			runtime.Gosched()
			running.Add(-int64(weight))
		})
	}
	callers.Wait()
	require.Zero(t, over.Load())
	s := b.Stats()
	require.Zero(t, s.Running)
	require.Zero(t, s.Waiting)
	whole, err := b.AcquireN(t.Context(), 7)
	require.NoError(t, err, "all of it is free")
	whole.Abort()
}

func TestQueueTimeoutRejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 2, QueueTimeout: time.Second})
		p := acquire(t, b)
		start := time.Now()
		require.ErrorIs(t, b.Do(t.Context(), nil), bulkhead.ErrFull)
		require.Equal(t, time.Second, time.Since(start))
		p.Done(nil)
		require.Equal(t, bulkhead.Stats{Limit: 1, Rejected: 1}, b.Stats())
	})
}

func TestPanicAndGoexitRelease(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	require.PanicsWithValue(t, "boom", func() {
		_ = b.Do(t.Context(), func(context.Context) error { panic("boom") })
	})
	require.Zero(t, b.Stats().Running)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = bulkhead.Wrap(b, func(context.Context, int) (int, error) { runtime.Goexit(); return 0, nil })(context.Background(), 1)
	}()
	<-done
	require.Zero(t, b.Stats().Running)
}

func TestAPermitIsGivenBackOnce(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{MaxConcurrent: 2})
	p, q := acquire(t, b), acquire(t, b)
	p.Done(nil)
	p.Done(nil)
	p.Abort()
	require.Equal(t, 1, b.Stats().Running)
	q.Abort()
	require.Zero(t, b.Stats().Running)
	var zero bulkhead.Permit
	zero.Done(nil)
}

func TestTheLimitHoldsAndNothingIsLostUnderLoadCancelAndReconfigure(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{MaxConcurrent: 4, MaxQueue: 10_000})
	var running, most atomic.Int64
	var group errgroup.Group
	for i := range 2000 {
		group.Go(func() error {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if i%3 == 0 {
				go func() {
					for range rand.IntN(50) {
						runtime.Gosched()
					}
					cancel()
				}()
			}
			err := b.Do(ctx, func(context.Context) error {
				now := running.Add(1)
				for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
				}
				runtime.Gosched()
				running.Add(-1)
				return nil
			})
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		})
	}
	for i := range 500 {
		if err := b.Reconfigure(bulkhead.Config{MaxConcurrent: 1 + i%8, MaxQueue: 10_000}); err != nil {
			t.Error(err)
		}
		runtime.Gosched()
	}
	require.NoError(t, group.Wait())
	s := b.Stats()
	require.Zero(t, s.Running, "exactly empty")
	require.Zero(t, s.Waiting)
	require.Zero(t, s.Rejected)
	require.LessOrEqual(t, most.Load(), int64(8))
	require.Positive(t, most.Load())
}

func TestReconfigureAdmitsWaitingCallersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 5})
		release := make(chan struct{})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				_ = b.Do(context.Background(), func(context.Context) error { <-release; return nil })
			})
		}
		synctest.Wait()
		require.Equal(t, 1, b.Stats().Running)
		require.NoError(t, b.Reconfigure(bulkhead.Config{MaxConcurrent: 3, MaxQueue: 5}))
		synctest.Wait()
		require.Equal(t, bulkhead.Stats{Running: 3, Waiting: 1, Limit: 3, Queued: 2}, b.Stats())

		require.NoError(t, b.Reconfigure(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 5}))
		require.Equal(t, 3, b.Stats().Running, "nobody is interrupted")
		close(release)
		group.Wait()
		require.Zero(t, b.Stats().Running)
		require.Error(t, b.Reconfigure(bulkhead.Config{MaxConcurrent: -1}))
		require.Equal(t, 1, b.Config().MaxConcurrent)
	})
}

func TestConfig(t *testing.T) {
	err := bulkhead.Config{Name: "bank", MaxConcurrent: -1, MaxQueue: 2_000_000}.Validate()
	require.ErrorContains(t, err, `bulkhead "bank": Config.MaxConcurrent is -1`)
	require.ErrorContains(t, err, `Config.MaxQueue is 2000000`)
	require.Panics(t, func() { bulkhead.New(bulkhead.Config{MaxConcurrent: -1}) })
	require.Panics(t, func() { bulkhead.Wrap[int, int](nil, nil) })
	var c bulkhead.Config
	require.NoError(t, json.Unmarshal([]byte(`{"max_concurrent":3,"max_queue":"off","queue_timeout":"1s"}`), &c))
	require.Equal(t, bulkhead.Config{MaxConcurrent: 3, MaxQueue: -1, QueueTimeout: time.Second}, c)
	b := bulkhead.New(c)
	require.NoError(t, b.Reconfigure(b.Config()))
	text, err := json.Marshal(b.Config())
	require.NoError(t, err)
	require.JSONEq(t, `{"name":"bulkhead","max_concurrent":3,"max_queue":"off","queue_timeout":"1s"}`, string(text))
}

func TestAnUncontendedCallAllocatesNothing(t *testing.T) {
	ctx := context.Background()
	fn := bulkhead.Wrap(bulkhead.New(bulkhead.Config{}), func(_ context.Context, n int) (int, error) { return n, nil })
	require.Zero(t, testing.AllocsPerRun(200, func() { _, _ = fn(ctx, 1) }))
}

func TestMetricsTellTheStats(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Name: "m", MaxConcurrent: 1})
	p := acquire(t, b)
	defer p.Done(nil)
	_, _ = b.Acquire(t.Context())
	got := maps.Collect(b.Metrics())
	require.Equal(t, map[string]float64{"running": 1, "waiting": 0, "limit": 1, "rejected_total": 1, "queued_total": 0, "left_total": 0}, got)
	kind, name, config := b.Describe()
	require.Equal(t, []any{"bulkhead", "m", b.Config()}, []any{kind, name, config})
}
