package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const guardTimeout = 250 * time.Millisecond

// guarded runs a test in a bubble with a guard that is closed at its end.
func guarded(t *testing.T, test func(t *testing.T, g *guard[string, int], s *faultyStore)) {
	synctest.Test(t, func(t *testing.T) {
		s := newFaultyStore()
		g := newGuard[string, int](s, guardTimeout, "users")
		defer func() {
			g.close()
			s.late.Wait()
		}()
		test(t, g, s)
	})
}

// within returns a context that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// lease takes the lease of a key.
func lease(t *testing.T, g *guard[string, int], key string) Lease[int] {
	grant, err := g.Lease(t.Context(), key, 0)
	require.NoError(t, err)
	require.NotNil(t, grant.Lease)
	return grant.Lease
}

// guardCalls are all calls that a guard passes on, each of a key of its own.
func guardCalls(l Lease[int], g *guard[string, int]) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"get": func(ctx context.Context) error { _, _, err := g.Get(ctx, "get"); return err },
		"lease": func(ctx context.Context) error {
			_, err := g.Lease(ctx, "lease", 0)
			return err
		},
		"set":     func(ctx context.Context) error { return g.Set(ctx, "set", Entry[int]{}) },
		"delete":  func(ctx context.Context) error { return g.Delete(ctx, "delete") },
		"fill":    func(ctx context.Context) error { _, err := l.Fill(ctx, Entry[int]{}); return err },
		"release": l.Release,
	}
}

func TestGuardPassesCallsOnWhileAllIsWell(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		ok, err := lease(t, g, "a").Fill(t.Context(), Entry[int]{Value: 1})
		require.NoError(t, err)
		require.True(t, ok)
		e, ok, err := g.Get(t.Context(), "a")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, 1, e.Value)
		grant, err := g.Lease(t.Context(), "a", 0)
		require.NoError(t, err)
		require.True(t, grant.Found)
		require.NoError(t, g.Set(t.Context(), "a", Entry[int]{Value: 2}))
		v, _ := s.held("a")
		require.Equal(t, 2, v)
		void := lease(t, g, "b")
		require.NoError(t, g.Delete(t.Context(), "b"))
		ok, err = void.Fill(t.Context(), Entry[int]{Value: 3})
		require.NoError(t, err)
		require.False(t, ok, "the fence of the store works through the guard")
		l := lease(t, g, "c")
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, lease(t, g, "c").Release(t.Context()))
		require.Zero(t, s.count("ping"), "a store that answers is not asked whether it does")
		require.Equal(t, guardStats{}, g.stats())
	})
}

func TestGuardBoundsTheTimeOfEachCall(t *testing.T) {
	for _, budget := range []time.Duration{0, time.Hour, 30 * time.Millisecond} {
		for _, op := range []string{"get", "lease", "set", "delete", "fill", "release"} {
			t.Run(fmt.Sprintf("%s with %v", op, budget), func(t *testing.T) {
				guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
					call := guardCalls(lease(t, g, "held"), g)[op]
					s.breaks(fault{hang: true})
					ctx, want := t.Context(), guardTimeout
					if budget > 0 {
						ctx, want = within(t, budget), min(budget, guardTimeout)
					}
					began := time.Now()
					err := call(ctx)
					require.Equal(t, want, time.Since(began))
					require.ErrorIs(t, err, ErrStore)
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.EqualValues(t, 1, g.stats().Failures)
					s.breaks()
				})
			})
		}
	}
}

func TestGuardWithoutTimeoutLeavesItToTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFaultyStore()
		g := newGuard[string, int](s, -1, "users")
		defer g.close()
		s.breaks(fault{hang: true})
		began := time.Now()
		_, _, err := g.Get(within(t, time.Minute), "a")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(began))
	})
}

func TestGuardShowsTheStoreHowLongALeaseMustLast(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		load := within(t, 10*time.Second)
		want, _ := load.Deadline()
		_, err := g.Lease(load, "a", 0)
		require.NoError(t, err)
		require.Equal(t, want, s.last().deadline)
		_, err = g.Lease(t.Context(), "b", 0)
		require.NoError(t, err)
		require.Zero(t, s.last().deadline, "a caller without a deadline gets the store's own lapse")
	})
}

func TestGuardFailsAtOnceWhileTheStoreIsAway(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		l := lease(t, g, "held")
		calls := guardCalls(l, g)
		s.breaks(fault{hang: true})
		_, _, err := g.Get(t.Context(), "other")
		require.NotErrorIs(t, err, errAway)
		require.True(t, g.stats().Away)
		synctest.Wait()
		began, asked := time.Now(), s.count("")
		for op, call := range calls {
			err := call(t.Context())
			require.ErrorIs(t, err, errAway, op)
			require.ErrorIs(t, err, ErrStore, op)
			require.ErrorContains(t, err, `cache "users": store failed: the store is away`)
		}
		require.Zero(t, time.Since(began))
		require.Equal(t, asked, s.count(""), "a store that is away is not asked")
		require.EqualValues(t, 1, g.stats().Failures)
		require.Zero(t, testing.AllocsPerRun(100, func() { _, _, _ = g.Get(t.Context(), "get") }))
		_, _, first := g.Get(t.Context(), "get")
		time.Sleep(time.Minute)
		_, _, later := g.Get(t.Context(), "get")
		require.Same(t, first, later, "one error serves while the store is away")
		s.breaks()
	})
}

func TestGuardComesBackWithinASecondOfTheStore(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		s.breaks(fault{err: errDown})
		began := time.Now()
		require.ErrorIs(t, g.Delete(t.Context(), "a"), errDown)
		synctest.Wait()
		require.Equal(t, []time.Time{began}, s.times("ping"), "the store is asked at once")
		time.Sleep(30 * time.Second)
		pings := s.times("ping")
		require.Less(t, len(pings), 70, "the backoff grows")
		require.Greater(t, len(pings), 30, "and is bounded by a second")
		require.LessOrEqual(t, pings[1].Sub(pings[0]), minPause)
		gaps := map[time.Duration]bool{}
		for i := len(pings) - 20; i < len(pings); i++ {
			gap := pings[i].Sub(pings[i-1])
			gaps[gap] = true
			require.GreaterOrEqual(t, gap, maxPause/2)
			require.LessOrEqual(t, gap, maxPause)
		}
		require.Len(t, gaps, 20, "the pauses of many processes must not fall together")
		s.breaks()
		time.Sleep(maxPause)
		require.NoError(t, g.Set(t.Context(), "a", Entry[int]{}))
		require.Equal(t, guardStats{Failures: 1}, g.stats())
	})
}

func TestGuardMakesTheOwedDeletesBeforeItComesBack(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		const n = 100
		for i := range n {
			require.NoError(t, g.Set(t.Context(), strconv.Itoa(i), Entry[int]{Value: i}))
		}
		require.NoError(t, g.Set(t.Context(), "kept", Entry[int]{}))
		s.breaks(fault{err: errDown})
		for i := range n {
			require.ErrorIs(t, g.Delete(t.Context(), strconv.Itoa(i)), ErrStore)
		}
		require.Equal(t, n, g.stats().Pending)
		s.breaksFor(func(op, _ string) fault {
			if op == "delete" {
				return fault{latency: 100 * time.Millisecond}
			}
			return fault{}
		})
		time.Sleep(minPause + 99*time.Millisecond)
		require.Positive(t, s.count("delete"))
		_, _, err := g.Get(t.Context(), "kept")
		require.ErrorIs(t, err, errAway, "the store answers but still holds what was deleted")
		time.Sleep(2 * time.Second)
		require.Equal(t, guardStats{Failures: 1}, g.stats())
		for i := range n {
			_, ok := s.held(strconv.Itoa(i))
			require.False(t, ok)
		}
		_, ok, err := g.Get(t.Context(), "kept")
		require.NoError(t, err)
		require.True(t, ok)
	})
}

// A Delete whose caller gave up says nothing of the store, but the key must not be read until the delete was made.
func TestGuardRefusesOnlyTheKeyThatACancelledCallLeft(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		require.NoError(t, g.Set(t.Context(), "a", Entry[int]{Value: 1}))
		l := lease(t, g, "b")
		s.breaksFor(func(op, _ string) fault {
			if op == "delete" {
				return fault{latency: 100 * time.Millisecond}
			}
			return fault{}
		})
		require.ErrorIs(t, g.Delete(within(t, time.Millisecond), "a"), context.DeadlineExceeded)
		require.ErrorIs(t, g.Delete(within(t, time.Millisecond), "b"), context.DeadlineExceeded)
		synctest.Wait()
		require.Equal(t, guardStats{Pending: 2, Failures: 2}, g.stats())
		_, _, err := g.Get(t.Context(), "a")
		require.ErrorIs(t, err, errAway)
		_, err = g.Lease(t.Context(), "a", 0)
		require.ErrorIs(t, err, errAway)
		ok, err := l.Fill(t.Context(), Entry[int]{Value: 2})
		require.ErrorIs(t, err, errAway)
		require.False(t, ok)
		_, _, err = g.Get(t.Context(), "c")
		require.NoError(t, err)
		time.Sleep(guardTimeout)
		require.Equal(t, guardStats{Failures: 2}, g.stats())
		_, ok, err = g.Get(t.Context(), "a")
		require.NoError(t, err)
		require.False(t, ok)
	})
}

// Callers whose time is shorter than the timeout never see the guard's own run out.
func TestGuardNoticesAHangingStoreThroughImpatientCallers(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		s.breaks(fault{hang: true})
		_, _, err := g.Get(within(t, 5*time.Millisecond), "a")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, g.stats().Away)
		time.Sleep(guardTimeout)
		synctest.Wait()
		require.True(t, g.stats().Away)
		s.breaks()
	})
}

func TestGuardKeepsAStoreWhoseCallersAreImpatient(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		s.breaksFor(func(op, _ string) fault {
			if op == "get" {
				return fault{latency: 10 * time.Millisecond}
			}
			return fault{latency: time.Millisecond}
		})
		const calls = 200
		for range calls {
			_, _, err := g.Get(within(t, 5*time.Millisecond), "a")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.False(t, g.stats().Away)
		}
		require.Equal(t, calls, s.count("get"))
		require.LessOrEqual(t, s.count("ping"), calls*5/10+2, "one ping in ten milliseconds at most")
		require.GreaterOrEqual(t, s.count("ping"), 2)
	})
}

// A driver that puts the deadline on its connection may fail with an error of its own.
func TestGuardDoesNotBlameTheStoreForTheCallersDeadline(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		s.breaksFor(func(op, _ string) fault {
			if op != "get" {
				return fault{}
			}
			return fault{err: errors.New("i/o timeout")}
		})
		_, _, err := g.Get(noTimer{t.Context()}, "a")
		require.ErrorContains(t, err, "i/o timeout")
		require.False(t, g.stats().Away)
	})
}

// noTimer is a context with a deadline that has just passed but has not yet ended.
type noTimer struct{ context.Context }

func (noTimer) Deadline() (time.Time, bool) { return time.Now(), true }

// selfInflicted is an error of a driver about the call, not about the store.
type selfInflicted struct{ rejected, permanent bool }

func (selfInflicted) Error() string     { return "value cannot be encoded" }
func (e selfInflicted) Rejected() bool  { return e.rejected }
func (e selfInflicted) Permanent() bool { return e.permanent }

func TestGuardKeepsAStoreThatRefusesACall(t *testing.T) {
	for _, err := range []selfInflicted{{rejected: true}, {permanent: true}} {
		guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
			require.NoError(t, g.Set(t.Context(), "a", Entry[int]{Value: 1}))
			s.breaksFor(func(op, _ string) fault {
				if op == "set" {
					return fault{err: err}
				}
				return fault{latency: time.Millisecond}
			})
			require.ErrorIs(t, g.Set(t.Context(), "a", Entry[int]{Value: 2}), err)
			require.Equal(t, guardStats{Pending: 1, Failures: 1}, g.stats())
			time.Sleep(minPause)
			require.Equal(t, guardStats{Failures: 1}, g.stats())
			_, ok := s.held("a")
			require.False(t, ok, "the value that was to be replaced is not served")
		})
	}
}

func TestGuardGivesUpADeleteThatCannotSucceed(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		s.breaksFor(func(_, key string) fault {
			if key == "unencodable" {
				return fault{err: selfInflicted{permanent: true}}
			}
			return fault{}
		})
		require.Error(t, g.Delete(t.Context(), "unencodable"))
		synctest.Wait()
		require.Equal(t, guardStats{Failures: 1}, g.stats())
		require.Equal(t, 2, s.count("delete"))
	})
}

// A store that answers a Ping and nothing else costs a caller the timeout about once a second, not every caller.
func TestGuardAsksAStoreThatFallsAgainLessAndLess(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		s.breaksFor(func(op, _ string) fault { return fault{hang: op == "get"} })
		began, paid := time.Now(), 0
		for time.Since(began) < time.Minute {
			if _, _, err := g.Get(t.Context(), "a"); errors.Is(err, context.DeadlineExceeded) {
				paid++
			}
			time.Sleep(time.Millisecond)
		}
		require.Less(t, paid, 100)
		require.Greater(t, paid, 45, "and it is let through again when it may be well")
		s.breaks()
	})
}
