package pubsub

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// slowLagger answers after a while, or not before its caller gives up.
type slowLagger struct {
	Receiver
	asked atomic.Int64
	takes atomic.Int64 // nanoseconds
	lag   atomic.Pointer[Lag]
}

func (l *slowLagger) Lag(ctx context.Context) (Lag, error) {
	l.asked.Add(1)
	select {
	case <-time.After(time.Duration(l.takes.Load())):
		return *l.lag.Load(), nil
	case <-ctx.Done():
		return Lag{}, errors.New("no answer")
	}
}

func TestTheLagIsAskedForOnlyWhileItIsReadAndNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &slowLagger{}
		l.takes.Store(int64(time.Second))
		l.lag.Store(&Lag{Waiting: 7, Unsettled: 2})
		w := newLagWatch(l)
		begun := time.Now()
		for range 1000 {
			waiting, unsettled := w.look()
			require.True(t, math.IsNaN(waiting) && math.IsNaN(unsettled))
		}
		require.Zero(t, time.Since(begun), "it waited")
		after := func(d time.Duration) (waiting, unsettled float64) {
			<-time.After(d)
			synctest.Wait()
			return w.look()
		}
		waiting, unsettled := after(time.Second)
		require.Equal(t, []float64{7, 2}, []float64{waiting, unsettled})
		require.EqualValues(t, 1, l.asked.Load(), "a thousand readers, one question")

		_, _ = after(time.Minute)
		require.InDelta(t, 16, l.asked.Load(), 1, "every four seconds")
		_, _ = after(time.Hour)
		asked := l.asked.Load()
		require.Less(t, asked, int64(55), "nobody reads for an hour")
		l.lag.Store(&Lag{Waiting: 8, Unsettled: -1})
		waiting, unsettled = after(2 * time.Second) // the last look has had it asked again
		require.InDelta(t, 8, waiting, 0)
		require.True(t, math.IsNaN(unsettled), "what the broker does not tell")

		l.takes.Store(int64(time.Hour)) // the broker hangs
		<-time.After(lagStale + lagEvery)
		waiting, _ = w.look()
		require.True(t, math.IsNaN(waiting), "too old to be told")
		w.end()
		synctest.Wait()
		asked = l.asked.Load()
		_, _ = after(time.Hour)
		require.Equal(t, asked, l.asked.Load(), "after the end")
	})
}
