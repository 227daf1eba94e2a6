package backstay_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/breaker"
)

// The cases T01 to T25 are those by which the libraries of the field are compared in bench/cases.

func breakIt(context.Context) error { return errBroken }
func succeed(context.Context) error { return nil }

// flight is a call under way: it ends with what is sent to end.
type flight struct {
	end  chan error
	left chan struct{}
}

// launch starts a call, which must be admitted. It is for use in a synctest bubble.
func launch(t *testing.T, b *breaker.Breaker) *flight {
	t.Helper()
	f := &flight{end: make(chan error), left: make(chan struct{})}
	running := false
	go func() {
		defer close(f.left)
		_ = b.Do(context.Background(), func(context.Context) error {
			running = true
			return <-f.end
		})
	}()
	synctest.Wait()
	require.True(t, running, "rejected while %s", b.State())
	return f
}

func (f *flight) finish(err error) {
	f.end <- err
	<-f.left
}

// tripped returns a breaker whose delay of a second has just begun.
func tripped(t *testing.T, cfg breaker.Config, opts ...breaker.Option) *breaker.Breaker {
	t.Helper()
	b := breaker.New(consecutive(cfg), opts...)
	require.ErrorIs(t, b.Do(t.Context(), breakIt), errBroken)
	require.Equal(t, breaker.Open, b.State())
	return b
}

func consecutive(cfg breaker.Config) breaker.Config {
	cfg.FailureRatio, cfg.ConsecutiveFailures, cfg.OpenDelay = -1, 1, time.Second
	return cfg
}

func TestT01_HalfOpenAdmitsExactlyThreeOfThirty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tripped(t, breaker.Config{Probes: 3})
		time.Sleep(time.Second)
		release := make(chan struct{})
		admitted, rejected := make(chan struct{}, 30), make(chan error, 30)
		for range 30 {
			go func() {
				err := b.Do(context.Background(), func(context.Context) error {
					admitted <- struct{}{}
					<-release
					return nil
				})
				if err != nil {
					rejected <- err
				}
			}()
		}
		synctest.Wait()
		require.Len(t, admitted, 3)
		require.Len(t, rejected, 27)
		require.ErrorIs(t, <-rejected, breaker.ErrOpen)
		close(release)
		synctest.Wait()
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestT02_LateCompletionsNeitherChangeStateNorFreeProbeSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(consecutive(breaker.Config{Probes: 3}))
		late := []*flight{launch(t, b), launch(t, b), launch(t, b), launch(t, b)}
		require.Error(t, b.Do(t.Context(), breakIt))
		late[0].finish(errBroken)
		require.Equal(t, breaker.Open, b.State())
		time.Sleep(time.Second)

		probe := launch(t, b)
		late[1].finish(errBroken)
		require.Equal(t, breaker.HalfOpen, b.State(), "after a late failure")
		late[2].finish(nil)
		late[3].finish(nil)
		require.Equal(t, breaker.HalfOpen, b.State(), "after late successes")
		probes := []*flight{probe, launch(t, b), launch(t, b)}
		require.ErrorIs(t, b.Do(t.Context(), succeed), breaker.ErrOpen, "three probes are out, late results free none")
		for _, p := range probes {
			p.finish(nil)
		}
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestT03_ALateSuccessDoesNotClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(consecutive(breaker.Config{Probes: 1}))
		late := []*flight{launch(t, b), launch(t, b)}
		require.Error(t, b.Do(t.Context(), breakIt))
		late[0].finish(nil)
		require.Equal(t, breaker.Open, b.State())
		time.Sleep(time.Second)
		probe := launch(t, b)
		late[1].finish(nil)
		require.Equal(t, breaker.HalfOpen, b.State())
		probe.finish(nil)
		require.Equal(t, breaker.Closed, b.State())
	})
}

const slidingWindow = 10 * time.Second

func windowed() *breaker.Breaker {
	return breaker.New(breaker.Config{WindowTime: slidingWindow, MinimumCalls: 6, OpenDelay: time.Hour})
}

func TestT04_TheSlidingWindowCatchesFailuresAcrossAnEdgeAndForgets(t *testing.T) {
	sixFailures := func(before, between time.Duration) (state breaker.State) {
		synctest.Test(t, func(t *testing.T) {
			b := windowed()
			time.Sleep(before)
			for i := range 6 {
				if i == 3 {
					time.Sleep(between)
				}
				_ = b.Do(t.Context(), breakIt)
			}
			state = b.State()
		})
		return state
	}
	// Wherever the edges of a window or of its buckets may lie, failures 8/10 of a window apart are within one.
	for tenths := range time.Duration(20) {
		before := tenths * slidingWindow / 20
		require.Equal(t, breaker.Open, sixFailures(before, slidingWindow*8/10), "%s after the start", before)
		require.Equal(t, breaker.Closed, sixFailures(before, slidingWindow*11/10+time.Millisecond), "%s after the start", before)
	}
}

func TestT05_FailuresSlowerThanTheWindowCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := windowed()
		var flights []*flight
		for range 6 {
			flights = append(flights, launch(t, b))
		}
		time.Sleep(3 * slidingWindow / 2)
		for _, f := range flights {
			f.finish(errBroken)
		}
		require.Equal(t, breaker.Open, b.State())
	})
}

func TestT06_APanicInAProbeFreesItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tripped(t, breaker.Config{Probes: 1, MaxOpenDelay: -1})
		time.Sleep(time.Second)
		require.PanicsWithValue(t, "probe", func() {
			_ = b.Do(t.Context(), func(context.Context) error { panic("probe") })
		})
		require.Equal(t, breaker.Open, b.State(), "a panic is a failed probe")
		time.Sleep(time.Second)
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestT07_GoexitInAProbeFreesItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tripped(t, breaker.Config{Probes: 1, MaxOpenDelay: -1})
		time.Sleep(time.Second)
		var caller sync.WaitGroup
		caller.Go(func() {
			_ = b.Do(context.Background(), func(context.Context) error { runtime.Goexit(); return nil })
		})
		caller.Wait()
		require.Equal(t, breaker.Open, b.State())
		time.Sleep(time.Second)
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestT08_APanicCountsAsAFailure(t *testing.T) {
	b := breaker.New(consecutive(breaker.Config{}))
	require.Panics(t, func() { _ = b.Do(t.Context(), func(context.Context) error { panic("operation") }) })
	require.Equal(t, breaker.Open, b.State())
	require.EqualValues(t, 1, b.Stats().Failures)
}

func TestT09_ACallersCancelIsNoFailureADeadlineIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(consecutive(breaker.Config{}))
		cancelled, cancel := context.WithCancel(t.Context())
		require.ErrorIs(t, b.Do(cancelled, func(context.Context) error { cancel(); return cancelled.Err() }), context.Canceled)
		require.Equal(t, breaker.Closed, b.State())
		require.EqualValues(t, 1, b.Stats().Ignored)

		expiring, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		require.ErrorIs(t, b.Do(expiring, hang), context.DeadlineExceeded)
		require.Equal(t, breaker.Open, b.State(), "a dependency that hangs until its callers give up is not healthy")
	})
}

func TestT10_TheStateHookMayUseTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *breaker.Breaker
		var seen []breaker.State
		b = tripped(t, breaker.Config{Probes: 1}, breaker.OnStateChange(func(breaker.Transition) {
			if b == nil {
				return
			}
			seen = append(seen, b.State())
			_ = b.Stats()
			_ = b.Reconfigure(b.Config())
			_ = b.Do(context.Background(), succeed)
		}))
		time.Sleep(time.Second)
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Contains(t, seen, breaker.Closed)
	})
}

func TestT11_AHungProbeDoesNotBlockRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tripped(t, breaker.Config{Probes: 1, ProbeTimeout: 3 * time.Second})
		time.Sleep(time.Second)
		hung := launch(t, b)
		require.ErrorIs(t, b.Do(t.Context(), succeed), breaker.ErrOpen)
		time.Sleep(3 * time.Second)
		require.NoError(t, b.Do(t.Context(), succeed))
		require.Equal(t, breaker.Closed, b.State())
		hung.finish(errBroken)
		require.Equal(t, breaker.Closed, b.State(), "the lost probe came back and changes nothing")
	})
}

// TestT12_TheDataOfATransitionIsRaceFree relies on the race detector: the hook, which is called by one goroutine at a time, notes
// every event without a lock, and others read it at once, while calls and late results come in and the Config changes.
func TestT12_TheDataOfATransitionIsRaceFree(t *testing.T) {
	for _, window := range []time.Duration{0, slidingWindow} {
		synctest.Test(t, func(t *testing.T) {
			var seen []breaker.Transition
			var readers, callers sync.WaitGroup
			cfg := consecutive(breaker.Config{Probes: 1, WindowTime: window, MaxOpenDelay: -1})
			b := breaker.New(cfg, breaker.OnStateChange(func(e breaker.Transition) {
				seen = append(seen, e)
				readers.Go(func() {
					if e.Name != "breaker" && e.Name != "renamed" || e.From == e.To || e.At.IsZero() {
						t.Errorf("%+v", e)
					}
				})
				time.Sleep(2 * time.Second) // meanwhile others change the state, and their events have to wait
			}))
			for caller := range uint64(8) {
				random := rand.New(rand.NewPCG(caller, 1))
				callers.Go(func() {
					for range 200 {
						_ = b.Do(context.Background(), func(context.Context) error {
							time.Sleep(time.Duration(random.IntN(20)) * 100 * time.Millisecond)
							if random.IntN(3) == 0 {
								return errBroken
							}
							return nil
						})
						time.Sleep(time.Duration(random.IntN(5)) * 100 * time.Millisecond)
					}
				})
			}
			callers.Go(func() {
				for i := range 100 {
					renamed := cfg
					renamed.Name = []string{"breaker", "renamed"}[i%2]
					require.NoError(t, b.Reconfigure(renamed))
					time.Sleep(time.Second)
				}
			})
			callers.Wait()
			readers.Wait()
			require.Greater(t, len(seen), 50)
			for i, e := range seen[1:] {
				require.Equal(t, seen[i].To, e.From, "events come in order")
				require.False(t, e.At.Before(seen[i].At))
			}
		})
	}
}
