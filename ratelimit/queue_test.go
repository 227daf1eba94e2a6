package ratelimit

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestATurnInTheMomentOfLeavingIsGivenBackIfThatIsSafe(t *testing.T) {
	for name, c := range map[string]struct {
		since     func(*Limiter)
		available int // of 2, 100 ms after the turn, when one of them would be back anyhow
	}{
		"nobody passed since":   {func(*Limiter) {}, 2},
		"somebody passed since": {func(l *Limiter) { _ = l.Allow() }, 0},
		"it was replaced since": {func(l *Limiter) { l.reconfigure(Config{Rate: 20, Burst: 2, MaxWait: -1}) }, 1},
		"somebody waits since":  {func(l *Limiter) { _, _ = l.enqueue(context.Background(), 2) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(Config{Rate: 10, Burst: 2, MaxWait: -1})
				require.NoError(t, l.AllowN(2))
				w, passed := l.enqueue(t.Context(), 2)
				require.False(t, passed)
				<-w.turn
				<-time.After(100 * time.Millisecond)
				c.since(l)
				l.leave(w)
				require.Equal(t, c.available, l.Stats().Available)
				require.Zero(t, l.Stats().Waiting, "whoever waited was let through in its place")
				<-time.After(time.Hour)
				require.Equal(t, 2, l.Stats().Available)
			})
		})
	}
}

func TestACallerThatIsWokenLateDoesNotSlowTheRate(t *testing.T) {
	b := newBucket(nil, Config{Rate: 10, Burst: 1})
	require.True(t, b.take(1, 0))
	w := &waiter{weight: 1, since: 0}
	require.Equal(t, b.interval-1, b.admit(w, 1))
	require.Zero(t, b.admit(w, 5*b.interval), "its turn came four intervals ago")
	require.Equal(t, 2*b.interval, b.tat.Load(), "and counts from then")
	late := &waiter{weight: 1, since: 4 * b.interval}
	require.Zero(t, b.admit(late, 5*b.interval))
	require.Equal(t, 5*b.interval, b.tat.Load(), "but from no time before it came")
}
