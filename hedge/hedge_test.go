package hedge_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/hedge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errBroken = errors.New("broken")
	errOther  = errors.New("broken too")
)

// call is what one of the two calls does: it answers with value and err after a time, or sooner if it obeys its context.
type call struct {
	takes time.Duration
	value int
	err   error
	deaf  bool
}

// script returns a function whose first and second calls do what is given, and a log of the values that were discarded.
func script(first, second call) (fn func(context.Context, int) (int, error), discard func(int), discarded *[]int) {
	var mu sync.Mutex
	discarded = new([]int)
	fn = func(ctx context.Context, _ int) (int, error) {
		c := first
		if hedge.Attempt(ctx) == 2 {
			c = second
		}
		timer := time.NewTimer(c.takes)
		defer timer.Stop()
		done := ctx.Done()
		if c.deaf {
			done = nil
		}
		select {
		case <-timer.C:
			return c.value, c.err
		case <-done:
			return 0, ctx.Err()
		}
	}
	discard = func(n int) {
		mu.Lock()
		defer mu.Unlock()
		*discarded = append(*discarded, n)
	}
	return fn, discard, discarded
}

func TestTheSecondCallBeginsAfterTheDelayAndTheFirstAnswerWins(t *testing.T) {
	for name, c := range map[string]struct {
		first, second call
		want          int
		takes         time.Duration
		stats         hedge.Stats
	}{
		"first at once":              {call{takes: time.Millisecond, value: 1}, call{}, 1, time.Millisecond, hedge.Stats{}},
		"first just in time":         {call{takes: 99 * time.Millisecond, value: 1}, call{}, 1, 99 * time.Millisecond, hedge.Stats{}},
		"first wins after the delay": {call{takes: 150 * time.Millisecond, value: 1}, call{takes: time.Second}, 1, 150 * time.Millisecond, hedge.Stats{Hedged: 1}},
		"second wins":                {call{takes: time.Hour}, call{takes: time.Millisecond, value: 2}, 2, 101 * time.Millisecond, hedge.Stats{Hedged: 1, SecondWon: 1}},
		"second wins though first failed": {call{takes: 101 * time.Millisecond, err: errBroken}, call{takes: time.Second, value: 2}, 2, 1100 * time.Millisecond,
			hedge.Stats{Hedged: 1, SecondWon: 1}},
		"first wins though second failed": {call{takes: time.Second, value: 1}, call{takes: time.Millisecond, err: errBroken}, 1, time.Second, hedge.Stats{Hedged: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := hedge.New(hedge.Config{})
				fn, discard, discarded := script(c.first, c.second)
				start := time.Now()
				out, err := hedge.Wrap(h, fn, discard)(t.Context(), 0)
				require.NoError(t, err)
				require.Equal(t, c.want, out)
				require.Equal(t, c.takes, time.Since(start))
				synctest.Wait()
				c.stats.Calls, c.stats.Delay = 1, 100*time.Millisecond
				require.Equal(t, c.stats, h.Stats(), "and nothing runs on: the loser was cancelled")
				require.Empty(t, *discarded)
			})
		})
	}
}

func TestThereIsNeverAThirdCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		fn := hedge.Wrap(hedge.New(hedge.Config{After: time.Millisecond}), func(context.Context, int) (int, error) {
			calls.Add(1)
			<-time.After(time.Hour)
			return 1, nil
		}, nil)
		_, err := fn(t.Context(), 1)
		require.NoError(t, err)
		require.EqualValues(t, 2, calls.Load())
		<-time.After(time.Second)
	})
}

func TestAFirstCallThatFailsBeforeTheDelayIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{})
		fn, discard, _ := script(call{takes: time.Millisecond, value: 7, err: errBroken}, call{value: 2})
		out, err := hedge.Wrap(h, fn, discard)(t.Context(), 0)
		require.Equal(t, errBroken, err)
		require.Equal(t, 7, out)
		require.Zero(t, h.Stats().Hedged)
	})
}

func TestTheLosersValueGoesToDiscard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			first, second  call
			want           int
			wantsDiscarded []int
		}{
			{call{takes: time.Minute, value: 1, deaf: true}, call{value: 2}, 2, []int{1}},
			{call{takes: time.Second, value: 1}, call{takes: time.Minute, value: 2, deaf: true}, 1, []int{2}},
			{call{takes: time.Minute, value: 1, err: errBroken, deaf: true}, call{value: 2}, 2, nil},
		} {
			h := hedge.New(hedge.Config{})
			fn, discard, discarded := script(c.first, c.second)
			out, err := hedge.Wrap(h, fn, discard)(t.Context(), 0)
			require.NoError(t, err)
			require.Equal(t, c.want, out)
			require.EqualValues(t, 1, h.Stats().Running, "the loser is deaf")
			<-time.After(time.Hour)
			synctest.Wait()
			require.Equal(t, c.wantsDiscarded, *discarded)
			require.Zero(t, h.Stats().Running)
		}
	})
}

// At the instant of a tie each value is returned or discarded, exactly once.
func TestEveryValueIsReturnedOrDiscardedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{After: time.Second, Budget: -1})
		var next, discarded, sum atomic.Int64
		fn := hedge.Wrap(h, func(ctx context.Context, _ int) (int64, error) {
			<-time.After(time.Duration(3-hedge.Attempt(ctx)) * time.Second) // both are ready after two seconds
			n := next.Add(1)
			sum.Add(n)
			return n, nil
		}, func(n int64) { discarded.Add(n) })
		var callers sync.WaitGroup
		var returned atomic.Int64
		for range 1000 {
			callers.Go(func() {
				n, err := fn(t.Context(), 0)
				if err != nil {
					t.Error(err)
				}
				returned.Add(n)
			})
		}
		callers.Wait()
		synctest.Wait()
		require.EqualValues(t, 2000, next.Load())
		require.Equal(t, sum.Load(), returned.Load()+discarded.Load())
		require.Zero(t, h.Stats().Running)
	})
}

type rejection struct{}

func (rejection) Error() string             { return "rejected" }
func (rejection) Rejected() bool            { return true }
func (rejection) Permanent() bool           { return true }
func (rejection) RetryAfter() time.Duration { return time.Minute }

func TestBothCausesAreKeptWhenBothFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{Name: "stock"})
		fn, discard, _ := script(call{takes: time.Second, value: 7, err: errBroken}, call{takes: time.Millisecond, err: errOther})
		out, err := hedge.Wrap(h, fn, discard)(t.Context(), 0)
		require.Equal(t, &hedge.Error{Name: "stock", First: errBroken, Second: errOther}, err)
		require.ErrorIs(t, err, errBroken)
		require.ErrorIs(t, err, errOther)
		require.EqualError(t, err, `hedge "stock": broken; second call: broken too`)
		require.Equal(t, 7, out)

		fn, discard, _ = script(call{takes: time.Second, err: errBroken}, call{err: rejection{}})
		_, err = hedge.Wrap(h, fn, discard)(t.Context(), 0)
		require.Equal(t, errBroken, err, "the second did not run")
	})
	forwards := &hedge.Error{First: errBroken, Second: rejection{}}
	require.True(t, forwards.Permanent())
	require.Equal(t, time.Minute, forwards.RetryAfter())
}

func TestTheBudgetBoundsTheSecondCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{After: time.Second, Budget: 0.05})
		fn, discard, _ := script(call{takes: time.Minute, value: 1}, call{takes: time.Hour})
		var seconds atomic.Int64
		slow := hedge.Wrap(h, func(ctx context.Context, n int) (int, error) {
			if hedge.Attempt(ctx) == 2 {
				seconds.Add(1)
			}
			return fn(ctx, n)
		}, discard)
		for range 1000 {
			_, err := slow(t.Context(), 0)
			require.NoError(t, err)
		}
		hedged := seconds.Load()
		require.Equal(t, hedged, h.Stats().Hedged)
		require.LessOrEqual(t, hedged, int64(10+50))
		require.GreaterOrEqual(t, hedged, int64(10+49), "the first call found it full")
		require.Equal(t, 1000-hedged, h.Stats().Denied)

		require.NoError(t, h.Reconfigure(hedge.Config{After: time.Second, Budget: -1}))
		for range 100 {
			_, err := slow(t.Context(), 0)
			require.NoError(t, err)
		}
		require.Equal(t, hedged+100, seconds.Load())
	})
}

func TestTheCallerIsBackWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{})
		fn, discard, discarded := script(call{takes: time.Hour, value: 1, deaf: true}, call{takes: time.Hour, value: 2, deaf: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := hedge.Wrap(h, fn, discard)(ctx, 0)
		require.Equal(t, context.DeadlineExceeded, err)
		require.Equal(t, time.Second, time.Since(start))
		require.EqualValues(t, 2, h.Stats().Running)
		<-time.After(2 * time.Hour)
		synctest.Wait()
		slices.Sort(*discarded)
		require.Equal(t, []int{1, 2}, *discarded)

		_, err = hedge.Wrap(h, fn, discard)(ctx, 0)
		require.Equal(t, context.DeadlineExceeded, err)
		require.EqualValues(t, 1, h.Stats().Calls, "not begun")
	})
}

func blowUp() { panic(errBroken) }

func TestAPanicReachesTheCallerWithItsStack(t *testing.T) {
	for attempt := 1; attempt <= 2; attempt++ {
		synctest.Test(t, func(t *testing.T) {
			h := hedge.New(hedge.Config{})
			fn := hedge.Wrap(h, func(ctx context.Context, _ int) (int, error) {
				if hedge.Attempt(ctx) == attempt {
					blowUp()
				}
				<-ctx.Done()
				return 0, ctx.Err()
			}, nil)
			defer func() {
				p, ok := recover().(*hedge.Panic)
				require.True(t, ok)
				require.ErrorIs(t, p, errBroken)
				require.Equal(t, errBroken, p.Value)
				require.Contains(t, string(p.Stack), "hedge_test.blowUp")
				require.Contains(t, p.Error(), "hedge: panic: broken")
				synctest.Wait()
				require.Zero(t, h.Stats().Running, "the other call was cancelled")
				require.Zero(t, h.Stats().LatePanics)
			}()
			_, _ = fn(t.Context(), 0)
		})
	}
}

func TestGoexitReachesTheCaller(t *testing.T) {
	h := hedge.New(hedge.Config{})
	returned := false
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = hedge.Wrap(h, func(context.Context, int) (int, error) { runtime.Goexit(); return 0, nil }, nil)(t.Context(), 0)
		returned = true
	}()
	<-left
	require.False(t, returned)
	require.Zero(t, h.Stats().Running)
}

func TestALatePanicIsCountedAndEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []any
		h := hedge.New(hedge.Config{}, hedge.OnLatePanic(func(p *hedge.Panic) { seen = append(seen, p.Value) }))
		fn := hedge.Wrap(h, func(ctx context.Context, _ int) (int, error) {
			if hedge.Attempt(ctx) == 1 {
				<-time.After(time.Minute)
				panic("too late")
			}
			return 2, nil
		}, nil)
		_, err := fn(t.Context(), 0)
		require.NoError(t, err)
		<-time.After(time.Hour)
		synctest.Wait()

		first := call{takes: time.Minute, value: 1, deaf: true}
		deaf, _, _ := script(first, call{value: 2})
		_, err = hedge.Wrap(h, deaf, func(int) { panic("in discard") })(t.Context(), 0)
		require.NoError(t, err)
		_, err = hedge.Wrap(h, deaf, nil)(t.Context(), 0)
		require.NoError(t, err)
		<-time.After(time.Hour)
		synctest.Wait()
		require.Equal(t, []any{"too late", "in discard"}, seen)
		require.EqualValues(t, 2, h.Stats().LatePanics)

		silent := hedge.New(hedge.Config{})
		_, err = hedge.Wrap(silent, deaf, func(int) { panic("in discard") })(t.Context(), 0)
		require.NoError(t, err)
		<-time.After(time.Hour)
		synctest.Wait()
		require.EqualValues(t, 1, silent.Stats().LatePanics)
	})
}

// drawn is a function whose latency is drawn evenly from 0 to longest, and which obeys its context.
func drawn(longest *atomic.Int64) func(context.Context, int) (int, error) {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(7, 7))
	return func(ctx context.Context, _ int) (int, error) {
		mu.Lock()
		takes := time.Duration(random.Int64N(longest.Load()))
		mu.Unlock()
		select {
		case <-time.After(takes):
			return 1, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func TestTheDelayIsTheQuantileThoughSlowCallsAreCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{After: 10 * time.Second, Quantile: 0.9, Budget: -1})
		var longest atomic.Int64
		longest.Store(int64(time.Second))
		fn := hedge.Wrap(h, drawn(&longest), nil)
		make1000 := func() {
			for range 1000 {
				_, err := fn(t.Context(), 0)
				require.NoError(t, err)
			}
		}
		require.Equal(t, 10*time.Second, h.Stats().Delay, "until enough is known")
		for i := range 20 {
			make1000()
			require.InDelta(t, 0.95, h.Stats().Delay.Seconds(), 0.15, "after %d calls", 1000*(i+1))
		}
		require.InDelta(t, 0.07, float64(h.Stats().Hedged)/20_000, 0.03, "about one in ten, rather fewer")

		require.NoError(t, h.Reconfigure(hedge.Config{Quantile: 0.5, Budget: -1}))
		require.InDelta(t, 0.53, h.Stats().Delay.Seconds(), 0.08, "what was learned survives")

		longest.Store(int64(4 * time.Second))
		for range 4 {
			make1000()
		}
		require.InDelta(t, 2.1, h.Stats().Delay.Seconds(), 0.35, "it follows when all calls become slower")
		longest.Store(int64(100 * time.Millisecond))
		make1000()
		make1000()
		require.InDelta(t, 0.053, h.Stats().Delay.Seconds(), 0.01, "and faster")
	})
}

func TestFailuresTeachNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{After: time.Minute, Quantile: 0.5})
		takes, err := 100*time.Millisecond, error(nil)
		fn := hedge.Wrap(h, func(context.Context, int) (int, error) {
			<-time.After(takes)
			return 1, err
		}, nil)
		for range 200 {
			_, _ = fn(t.Context(), 0)
		}
		before := h.Stats().Delay
		require.InDelta(t, 0.1, before.Seconds(), 0.0125)
		takes, err = time.Millisecond, errBroken
		for range 2000 {
			_, _ = fn(t.Context(), 0)
		}
		require.Equal(t, before, h.Stats().Delay)
	})
}

func TestOffRunsTheFunctionOnTheCallersGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{After: -1})
		fn := hedge.Wrap(h, func(context.Context, int) (int, error) { panic("as it is") }, nil)
		require.PanicsWithValue(t, "as it is", func() { _, _ = fn(t.Context(), 0) })
		require.Zero(t, h.Stats().Delay)

		learning := hedge.New(hedge.Config{After: -1, Quantile: 0.9})
		slow, discard, _ := script(call{takes: time.Second, value: 1}, call{})
		for range 100 {
			_, err := hedge.Wrap(learning, slow, discard)(t.Context(), 0)
			require.NoError(t, err)
		}
		require.InDelta(t, 1, learning.Stats().Delay.Seconds(), 0.125, "off until it has learned")
	})
}

func TestReconfigureUnderLoadIsRaceFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{After: time.Millisecond, Quantile: 0.9})
		var longest atomic.Int64
		longest.Store(int64(10 * time.Millisecond))
		fn := hedge.Wrap(h, drawn(&longest), nil)
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for i := range 200 {
					if _, err := fn(t.Context(), 0); err != nil {
						t.Error(err)
					}
					cfg := h.Config()
					cfg.Quantile = []float64{0.5, 0.9, -1}[i%3]
					if err := h.Reconfigure(cfg); err != nil {
						t.Error(err)
					}
				}
			})
		}
		callers.Wait()
		synctest.Wait()
		require.Zero(t, h.Stats().Running)
		require.EqualValues(t, 1600, h.Stats().Calls)
	})
}

func TestNilFunctionsAreRefused(t *testing.T) {
	require.Panics(t, func() { hedge.Wrap[int, int](hedge.New(hedge.Config{}), nil, nil) })
	require.Panics(t, func() { hedge.Wrap(nil, func(context.Context, int) (int, error) { return 0, nil }, nil) })
	require.Panics(t, func() { hedge.OnLatePanic(nil) })
}
