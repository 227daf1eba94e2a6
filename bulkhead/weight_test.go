package bulkhead_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/bulkhead"
)

func TestAHeavyCallIsNotStarvedByLightOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{MaxConcurrent: 4, MaxQueue: 10})
		light := []*bulkhead.Permit{acquire(t, b), acquire(t, b), acquire(t, b)}
		heavy, next := make(chan *bulkhead.Permit, 1), make(chan *bulkhead.Permit, 1)
		enter := func(n int, admitted chan *bulkhead.Permit) {
			p, err := b.AcquireN(t.Context(), n)
			require.NoError(t, err)
			admitted <- &p
		}
		go enter(3, heavy)
		synctest.Wait()
		go enter(1, next) // there is room for it, but not before the heavy one
		synctest.Wait()
		require.Equal(t, bulkhead.Stats{Running: 3, Waiting: 2, Limit: 4}, b.Stats())
		light[0].Done(nil)
		require.Equal(t, 2, b.Stats().Running)
		light[1].Done(nil)
		synctest.Wait()
		require.Equal(t, bulkhead.Stats{Running: 4, Waiting: 1, Limit: 4, Queued: 1}, b.Stats())
		(<-heavy).Done(nil)
		(<-next).Abort()
		light[2].Done(nil)
		require.Equal(t, bulkhead.Stats{Limit: 4, Queued: 2}, b.Stats())
	})
}

func TestWhenAHeavyCallLeavesTheQueueALighterOneIsAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{MaxConcurrent: 4, MaxQueue: 10})
		p := acquire(t, b)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { _, _ = b.AcquireN(ctx, 4) }()
		synctest.Wait()
		start := time.Now()
		require.NoError(t, b.Do(t.Context(), func(context.Context) error { return nil }))
		require.Equal(t, time.Second, time.Since(start))
		p.Done(nil)
		require.Equal(t, bulkhead.Stats{Limit: 4, Queued: 1, Left: 1}, b.Stats())
	})
}

func TestAWeightThatCanNeverRunIsRejectedPermanently(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Name: "uploads", MaxConcurrent: 4, MaxQueue: 10})
	for _, n := range []int{math.MinInt, -1, 0, 5, math.MaxInt} {
		_, err := b.AcquireN(t.Context(), n)
		var rejection *bulkhead.Error
		require.ErrorAs(t, err, &rejection)
		require.ErrorIs(t, err, bulkhead.ErrFull)
		require.True(t, rejection.Rejected() && rejection.Permanent())
	}
	_, err := b.AcquireN(t.Context(), 5)
	require.EqualError(t, err, `bulkhead "uploads": the weight 5 is not from 1 to the limit of 4`)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = b.AcquireN(context.Background(), 5) }))
	require.Zero(t, b.Stats().Running)
}

func TestACallHeavierThanALoweredLimitRunsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{MaxConcurrent: 4, MaxQueue: 10})
		p, q := acquire(t, b), acquire(t, b)
		alone := make(chan int)
		go func() {
			if h, err := b.AcquireN(t.Context(), 4); err == nil {
				alone <- b.Stats().Running
				h.Done(nil)
			}
		}()
		synctest.Wait()
		require.NoError(t, b.Reconfigure(bulkhead.Config{MaxConcurrent: 2, MaxQueue: 10}))
		p.Done(nil)
		synctest.Wait()
		require.Equal(t, 1, b.Stats().Waiting)
		q.Done(nil)
		require.Equal(t, 4, <-alone)
		synctest.Wait()
		require.Zero(t, b.Stats().Running)
	})
}

func TestTenThousandCallersWithRandomCancelsLeaveItExactlyEmpty(t *testing.T) {
	const limit = 16
	b := bulkhead.New(bulkhead.Config{MaxConcurrent: limit, MaxQueue: 10_000})
	var weight, most atomic.Int64
	var group sync.WaitGroup
	for i := range 10_000 {
		group.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if i%3 == 0 {
				time.AfterFunc(time.Duration(rand.IntN(50_000))*time.Microsecond, cancel)
			}
			n := 1 + i%5
			p, err := b.AcquireN(ctx, n)
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				return
			}
			defer p.Abort()
			now := weight.Add(int64(n))
			for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
			}
			runtime.Gosched()
			weight.Add(-int64(n))
		})
	}
	group.Wait()
	s := b.Stats()
	require.Equal(t, bulkhead.Stats{Limit: limit, Queued: s.Queued, Left: s.Left}, s, "exactly empty")
	require.LessOrEqual(t, most.Load(), int64(limit))
	p, err := b.AcquireN(t.Context(), limit)
	require.NoError(t, err, "all of it can be had")
	p.Done(nil)
}
