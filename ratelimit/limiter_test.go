package ratelimit_test

import (
	"context"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/policytest"
	"github.com/backstay-go/backstay/ratelimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets d go by in a bubble.
func pass(d time.Duration) { <-time.After(d) }

func TestPolicy(t *testing.T) {
	policytest.Run(t, func() policytest.Policy {
		return ratelimit.New(ratelimit.Config{Rate: 100_000, Burst: 1, MaxWait: -1})
	})
}

func TestABurstPassesAndThenTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Name: "geocoder", Rate: 10, Burst: 3})
		for range 3 {
			require.NoError(t, l.Allow())
		}
		err := l.Allow()
		require.ErrorIs(t, err, ratelimit.ErrLimited)
		require.EqualError(t, err, `ratelimit "geocoder": 10 a second with bursts of 3 are used up: try again in 100ms`)
		var rejection *ratelimit.Error
		require.ErrorAs(t, err, &rejection)
		require.True(t, rejection.Rejected() && !rejection.Permanent())
		require.Equal(t, "geocoder", rejection.Name())
		require.Equal(t, 100*time.Millisecond, rejection.RetryAfter())
		var heavier *ratelimit.Error
		require.ErrorAs(t, l.AllowN(3), &heavier)
		require.Equal(t, 300*time.Millisecond, heavier.RetryAfter())
		pass(99 * time.Millisecond)
		require.Equal(t, time.Millisecond, rejection.RetryAfter(), "it counts from now")
		require.Error(t, l.Allow())
		pass(time.Millisecond)
		require.NoError(t, l.Allow(), "at the moment it was told")
		require.Error(t, l.Allow())
		pass(time.Hour)
		require.Equal(t, ratelimit.Stats{Available: 3, Rejected: 4}, l.Stats(), "never more than a burst")
	})
}

// TestAgainstANaiveTokenBucket compares 100,000 random steps with the textbook's other algorithm.
func TestAgainstANaiveTokenBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval, burst = 250 * time.Millisecond, 7
		l := ratelimit.New(ratelimit.Config{Rate: 4, Burst: burst})
		r := rand.New(rand.NewPCG(1, 2))
		have, last := burst*interval, time.Now()
		for step := range 100_000 {
			if r.IntN(2) == 0 {
				pass(time.Duration(r.Int64N(int64(interval))))
			}
			have, last = min(burst*interval, have+time.Since(last)), time.Now()
			n := 1 + r.IntN(burst+1)
			want := n <= burst && have >= time.Duration(n)*interval
			if want {
				have -= time.Duration(n) * interval
			}
			if got := l.AllowN(n) == nil; got != want {
				t.Fatalf("step %d: AllowN(%d) let it through: %v, the oracle: %v", step, n, got, want)
			}
			if got := l.Stats().Available; got != int(have/interval) {
				t.Fatalf("step %d: %d available, the oracle says %d", step, got, have/interval)
			}
		}
	})
}

func TestNoStretchOfTimeHasMoreThanBurstAndRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, burst = 50, 5
		l := ratelimit.New(ratelimit.Config{Rate: rate, Burst: burst, MaxWait: -1})
		limited := ratelimit.Wrap(l, func(context.Context, int) (int, error) { return 0, nil })
		ways := []func(ctx context.Context) (int, error){
			func(context.Context) (int, error) { return 1, l.Allow() },
			func(context.Context) (int, error) { return 3, l.AllowN(3) },
			func(ctx context.Context) (int, error) { return 1, l.Wait(ctx) },
			func(ctx context.Context) (int, error) { return burst, l.WaitN(ctx, burst) },
			func(ctx context.Context) (int, error) {
				return 1, l.Do(ctx, func(context.Context) error { return nil })
			},
			func(ctx context.Context) (int, error) { _, err := limited(ctx, 1); return 1, err },
		}
		var mu sync.Mutex
		var passed []time.Time
		var group sync.WaitGroup
		for caller := range 60 {
			r := rand.New(rand.NewPCG(uint64(caller), 1))
			group.Go(func() {
				for range 40 {
					pass(time.Duration(r.Int64N(int64(2 * time.Second))))
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(time.Duration(r.Int64N(int64(2*time.Second))), cancel)
					if n, err := ways[caller%len(ways)](ctx); err == nil {
						mu.Lock()
						passed = append(passed, slices.Repeat([]time.Time{time.Now()}, n)...)
						mu.Unlock()
					}
					cancel()
				}
			})
		}
		group.Wait()
		slices.SortFunc(passed, time.Time.Compare)
		for i := range passed {
			for j := i; j < len(passed); j++ {
				allowed := burst + rate*passed[j].Sub(passed[i]).Seconds() + 1e-6
				if float64(j-i+1) > allowed {
					t.Fatalf("%d calls in %v: at most %.2f may pass", j-i+1, passed[j].Sub(passed[i]), allowed)
				}
			}
		}
		require.Greater(t, float64(len(passed)), 0.9*rate*passed[len(passed)-1].Sub(passed[0]).Seconds(), "little is wasted")
		require.Zero(t, l.Stats().Waiting)
	})
}

func TestWaitingCallersAreServedInOrderAtTheExactRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1000, Burst: 1, MaxWait: -1})
		require.NoError(t, l.Allow())
		start := time.Now()
		order := make(chan int, 500)
		var group sync.WaitGroup
		for i := range 500 {
			group.Go(func() {
				require.NoError(t, l.Wait(t.Context()))
				require.Equal(t, time.Duration(i+1)*time.Millisecond, time.Since(start))
				order <- i
			})
			synctest.Wait() // it is in the queue before the next one comes
		}
		require.Equal(t, ratelimit.Stats{Waiting: 500}, l.Stats())
		group.Wait()
		for i := range 500 {
			require.Equal(t, i, <-order)
		}
		require.Equal(t, ratelimit.Stats{Queued: 500}, l.Stats())
	})
}

func TestNobodyOvertakesThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 10, Burst: 5, MaxWait: -1})
		require.NoError(t, l.AllowN(5))
		start := time.Now()
		heavy, light := make(chan time.Duration, 1), make(chan time.Duration, 1)
		go func() { _ = l.WaitN(context.Background(), 5); heavy <- time.Since(start) }()
		synctest.Wait()
		go func() { _ = l.Wait(context.Background()); light <- time.Since(start) }()
		pass(250 * time.Millisecond) // there is room for light calls now
		err := l.Allow()
		require.ErrorIs(t, err, ratelimit.ErrLimited)
		var rejection *ratelimit.Error
		require.ErrorAs(t, err, &rejection)
		require.Equal(t, 450*time.Millisecond, rejection.RetryAfter(), "after the two that wait")
		require.Equal(t, 500*time.Millisecond, <-heavy)
		require.Equal(t, 600*time.Millisecond, <-light)
	})
}

func TestACallerThatGivesUpHasTakenNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 10, Burst: 1, MaxWait: -1})
		require.NoError(t, l.Allow())
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make([]time.Duration, 10)
		var group sync.WaitGroup
		for i := range done {
			group.Go(func() {
				patience := context.Background()
				if i%2 == 0 || i == 5 {
					patience = ctx
				}
				if err := l.Wait(patience); err == nil {
					done[i] = time.Since(start)
				} else {
					require.ErrorIs(t, err, context.Canceled)
				}
			})
			synctest.Wait()
		}
		pass(50 * time.Millisecond)
		cancel()
		group.Wait()
		const slot = 100 * time.Millisecond
		require.Equal(t, []time.Duration{0, slot, 0, 2 * slot, 0, 0, 0, 3 * slot, 0, 4 * slot}, done, "the others move up")
		require.NoError(t, l.Wait(t.Context()))
		require.Equal(t, 5*slot, time.Since(start))
		require.Equal(t, ratelimit.Stats{Queued: 5, Left: 6}, l.Stats())
	})
}

func TestACallerWhoseContextEndsInTheQueueWasRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Name: "bank", Rate: 0.1, Burst: 1, MaxWait: -1})
		require.NoError(t, l.Allow())
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(2*time.Second, cancel)
		err := l.Wait(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, ratelimit.ErrLimited)
		rejection, ok := err.(*ratelimit.Error)
		require.True(t, ok)
		require.True(t, rejection.Rejected())
		require.False(t, rejection.Permanent())
		require.Equal(t, 8*time.Second, rejection.RetryAfter())
		require.EqualError(t, err,
			`ratelimit "bank": the turn did not come in time for a caller that waited, try again in 8s: context canceled`)
		require.Equal(t, ratelimit.Stats{Left: 1}, l.Stats())
		require.Equal(t, context.Canceled, l.Wait(ctx), "done already: it is not the limiter that refuses")

		// A deadline that could be kept may be missed when the rate is lowered meanwhile.
		slow, stop := context.WithTimeout(t.Context(), 9*time.Second)
		defer stop()
		time.AfterFunc(time.Second, func() { _ = l.Reconfigure(ratelimit.Config{Name: "bank", Rate: 0.01, Burst: 1, MaxWait: -1}) })
		err = l.Wait(slow)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, ratelimit.ErrLimited)
	})
}

func TestACancelledContextIsNeverLetThrough(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{Rate: 0.001, Burst: 1000, MaxWait: -1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 1000 {
		require.ErrorIs(t, l.Wait(ctx), context.Canceled)
	}
	require.Equal(t, 1000, l.Stats().Available, "and takes nothing")
}

func TestATurnThatComesTooLateIsRejectedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Burst: 1, MaxWait: 1500 * time.Millisecond})
		require.NoError(t, l.Wait(t.Context()))
		start := time.Now()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.Wait(short), ratelimit.ErrLimited, "the deadline comes first")
		inTime := make(chan error, 1)
		go func() { inTime <- l.Wait(context.Background()) }()
		synctest.Wait()
		require.ErrorIs(t, l.Wait(t.Context()), ratelimit.ErrLimited, "MaxWait is shorter than two turns")
		require.Zero(t, time.Since(start))
		require.NoError(t, <-inTime)
		require.Equal(t, time.Second, time.Since(start))
		require.Equal(t, ratelimit.Stats{Rejected: 2, Queued: 1}, l.Stats())

		refusing := ratelimit.New(ratelimit.Config{Rate: 1, Burst: 1})
		require.NoError(t, refusing.Do(t.Context(), func(context.Context) error { return nil }))
		err := refusing.Do(t.Context(), func(context.Context) error { t.Error("it ran"); return nil })
		require.ErrorIs(t, err, ratelimit.ErrLimited, "MaxWait is 0")
	})
}

func TestAWeightThatCanNeverPassIsRejectedPermanently(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{Name: "rows", Rate: 1, Burst: 5, MaxWait: -1})
	for _, n := range []int{math.MinInt, -1, 0, 6, math.MaxInt} {
		for _, err := range []error{l.AllowN(n), l.WaitN(t.Context(), n)} {
			var rejection *ratelimit.Error
			require.ErrorAs(t, err, &rejection)
			require.True(t, rejection.Permanent() && rejection.Rejected())
			require.Zero(t, rejection.RetryAfter())
		}
	}
	require.EqualError(t, l.AllowN(6), `ratelimit "rows": the weight 6 is not from 1 to the burst of 5`)
	require.NoError(t, l.AllowN(5))
	require.NotErrorIs(t, l.AllowN(5), l.AllowN(4), "each tells of its own weight")
}

func TestOffLetsEverythingThrough(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{Rate: -1, Burst: 2})
	for range 100 {
		require.NoError(t, l.AllowN(50))
	}
	require.Equal(t, ratelimit.Stats{Available: 2}, l.Stats())
	require.Error(t, l.AllowN(0))
}

func TestTheSlowestAndTheFastestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := ratelimit.New(ratelimit.Config{Rate: 1 / (364 * 24 * time.Hour).Seconds(), MaxWait: -1})
		require.Equal(t, 1, slow.Config().Burst)
		require.NoError(t, slow.Wait(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		waiting := make(chan error, 1)
		go func() { waiting <- slow.Wait(ctx) }()
		synctest.Wait()
		require.Equal(t, 1, slow.Stats().Waiting)
		require.ErrorIs(t, slow.Wait(t.Context()), ratelimit.ErrLimited, "its turn would come in two years")
		cancel()
		require.ErrorIs(t, <-waiting, context.Canceled)

		fast := ratelimit.New(ratelimit.Config{Rate: 1e9})
		require.NoError(t, fast.AllowN(1e9))
		require.Error(t, fast.Allow())
		pass(time.Microsecond)
		require.Equal(t, 1000, fast.Stats().Available)
	})
}

func TestReconfigureKeepsTheRoomThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		available := func(l *ratelimit.Limiter, cfg ratelimit.Config) int {
			require.NoError(t, l.Reconfigure(cfg))
			return l.Stats().Available
		}
		l := ratelimit.New(ratelimit.Config{Rate: 10, Burst: 10})
		require.NoError(t, l.AllowN(6))
		require.Equal(t, 4, available(l, l.Config()))
		require.Equal(t, 4, available(l, ratelimit.Config{Rate: 1000, Burst: 10}))
		require.Equal(t, 4, available(l, ratelimit.Config{Rate: 10, Burst: 100}))
		require.Equal(t, 2, available(l, ratelimit.Config{Rate: 10, Burst: 2}))
		require.Equal(t, 2, available(l, ratelimit.Config{Rate: 10, Burst: 10}), "back and forth gives nothing")
		require.Equal(t, 10, available(l, ratelimit.Config{Rate: -1, Burst: 10}))
		require.Equal(t, 10, available(l, ratelimit.Config{Rate: 10, Burst: 10}), "a limiter that was off begins anew")
		require.Error(t, l.Reconfigure(ratelimit.Config{Burst: -1}))
		require.Equal(t, 10, l.Config().Burst)
	})
}

func TestReconfigureServesThoseThatWaitByTheNewRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 0.01, Burst: 4, MaxWait: -1})
		require.NoError(t, l.AllowN(4))
		start := time.Now()
		turns := make(chan time.Duration, 10)
		enter := func(n int) {
			go func() { _ = l.WaitN(context.Background(), n); turns <- time.Since(start) }()
			synctest.Wait()
		}
		enter(1)
		enter(4)
		enter(1)
		require.NoError(t, l.Reconfigure(ratelimit.Config{Rate: 10, Burst: 2, MaxWait: -1}))
		require.Equal(t, 100*time.Millisecond, <-turns)
		require.Equal(t, 300*time.Millisecond, <-turns, "heavier than the burst: it takes a whole one")
		require.Equal(t, 400*time.Millisecond, <-turns)
		enter(2)
		enter(1)
		require.NoError(t, l.Reconfigure(ratelimit.Config{Rate: -1}))
		require.Equal(t, 400*time.Millisecond, <-turns, "off")
		require.Equal(t, 400*time.Millisecond, <-turns)
	})
}

func TestReconfigureUnderLoadGivesNobodyMoreCalls(t *testing.T) {
	const burst = 2_000_000
	slow := ratelimit.Config{Rate: 0.1, Burst: burst}
	l := ratelimit.New(slow)
	var passed atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for l.Allow() == nil {
				passed.Add(1)
			}
		})
	}
	for i := 0; l.Stats().Available > 0; i++ {
		cfg := slow
		cfg.Rate += float64(i%3) / 1000
		cfg.Burst += i % 2
		require.NoError(t, l.Reconfigure(cfg))
	}
	group.Wait()
	require.InDelta(t, burst, passed.Load(), 3, "none lost, none won") // in some seconds nearly nothing is refilled
}

func TestManyCallersWithRandomCancelsLeaveNobodyBehind(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{Rate: 100_000, Burst: 10, MaxWait: -1})
	var passed, cancelled atomic.Int64
	var group sync.WaitGroup
	for i := range 2000 {
		group.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if i%3 == 0 {
				time.AfterFunc(time.Duration(rand.IntN(20_000))*time.Microsecond, cancel)
			}
			switch err := l.WaitN(ctx, 1+i%10); {
			case err == nil:
				passed.Add(1)
			case errors.Is(err, context.Canceled):
				cancelled.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	require.Equal(t, int64(2000), passed.Load()+cancelled.Load())
	s := l.Stats()
	require.Zero(t, s.Waiting)
	require.Equal(t, cancelled.Load(), s.Left)
	require.NoError(t, l.Wait(t.Context()))
}

func TestPanicPassesThrough(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{})
	require.PanicsWithValue(t, "boom", func() { _ = l.Do(t.Context(), func(context.Context) error { panic("boom") }) })
	require.Panics(t, func() { ratelimit.Wrap[int, int](l, nil) })
	require.Panics(t, func() {
		ratelimit.Wrap(nil, func(context.Context, int) (int, error) { return 0, nil })
	})
}

func TestNoCallAllocates(t *testing.T) {
	ctx := context.Background()
	l := ratelimit.New(ratelimit.Config{Rate: 1e9})
	fn := ratelimit.Wrap(l, func(_ context.Context, n int) (int, error) { return n, nil })
	require.Zero(t, testing.AllocsPerRun(200, func() { _ = l.Allow(); _ = l.WaitN(ctx, 3); _, _ = fn(ctx, 1) }))
	used := ratelimit.New(ratelimit.Config{Rate: 0.001})
	require.NoError(t, used.Allow())
	require.Zero(t, testing.AllocsPerRun(200, func() { _ = used.Allow(); _ = used.Wait(ctx) }), "nor a rejection")
}

func TestMetricsTellTheStats(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{Name: "m", Rate: 0.001, Burst: 2})
	require.NoError(t, l.Allow())
	require.Error(t, l.AllowN(2))
	require.Equal(t, map[string]float64{"available": 1, "waiting": 0, "rejected_total": 1, "queued_total": 0, "left_total": 0},
		maps.Collect(l.Metrics()))
	kind, name, config := l.Describe()
	require.Equal(t, []any{"ratelimit", "m", l.Config()}, []any{kind, name, config})
}
