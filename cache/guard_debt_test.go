package cache

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// only makes the calls of one op fail.
func only(op string, f fault) func(string, string) fault {
	return func(o, _ string) fault {
		if o == op {
			return f
		}
		return fault{}
	}
}

// A load began before the outage, and a Delete came during it. The load's fill must not be what is left in the end,
// whichever side of the flush it arrives on.
func TestGuardNeverLetsALoadOverwriteADeleteDuringAnOutage(t *testing.T) {
	for _, f := range []struct {
		name string
		fill time.Duration // after the outage began
	}{{"during the outage", 100 * time.Millisecond}, {"after the flush", 5 * time.Second}} {
		t.Run(f.name, func(t *testing.T) {
			guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
				l := lease(t, g, "a")
				s.breaks(fault{err: errDown})
				_, _, err := g.Get(t.Context(), "b")
				require.ErrorIs(t, err, errDown)
				require.ErrorIs(t, g.Delete(t.Context(), "a"), errAway)
				time.AfterFunc(time.Second, func() { s.breaks() })
				time.Sleep(f.fill)
				ok, _ := l.Fill(t.Context(), Entry[int]{Value: 1})
				require.False(t, ok)
				time.Sleep(5 * time.Second)
				_, ok = s.held("a")
				require.False(t, ok)
				require.Zero(t, g.stats().Pending)
			})
		})
	}
}

// The fill passes the guard, hangs, and arrives while a Delete that began later is owed, or after it was made.
func TestGuardNeverLetsAFillOnTheWayOverwriteADelete(t *testing.T) {
	for _, late := range []time.Duration{time.Millisecond, time.Second} {
		guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
			l := lease(t, g, "a")
			s.breaks(fault{hang: true, late: late})
			filled := make(chan error, 1)
			go func() {
				_, err := l.Fill(t.Context(), Entry[int]{Value: 1})
				filled <- err
			}()
			synctest.Wait()
			require.ErrorIs(t, g.Delete(within(t, time.Millisecond), "a"), context.DeadlineExceeded)
			s.breaks()
			require.Error(t, <-filled)
			s.late.Wait()
			time.Sleep(time.Second)
			_, ok := s.held("a")
			require.False(t, ok)
			require.Equal(t, guardStats{Failures: 2}, g.stats())
		})
	}
}

func TestGuardNeedsNoDeleteAfterALaterWrite(t *testing.T) {
	writes := map[string]func(context.Context, *guard[string, int]) error{
		"set":    func(ctx context.Context, g *guard[string, int]) error { return g.Set(ctx, "a", Entry[int]{Value: 2}) },
		"delete": func(ctx context.Context, g *guard[string, int]) error { return g.Delete(ctx, "a") },
	}
	for name, write := range writes {
		t.Run(name, func(t *testing.T) {
			guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
				s.breaks(fault{hang: true})
				require.Error(t, g.Delete(within(t, time.Millisecond), "a"))
				require.Equal(t, 1, g.stats().Pending)
				s.breaks()
				require.NoError(t, write(t.Context(), g))
				require.Equal(t, guardStats{Failures: 1}, g.stats())
				_, _, err := g.Get(t.Context(), "a")
				require.NoError(t, err)
			})
		})
	}
}

// A Set that began before a Delete and is acknowledged after the Delete was in doubt does not stand for it, whether or
// not a delete was owed when the Set began.
func TestGuardStillOwesADeleteAfterAnOverlappingSet(t *testing.T) {
	for _, owedBefore := range []bool{false, true} {
		guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
			s.breaksFor(func(op, _ string) fault {
				if op == "set" {
					return fault{latency: 50 * time.Millisecond}
				}
				return fault{hang: true}
			})
			if owedBefore {
				require.Error(t, g.Delete(within(t, time.Millisecond), "a"))
			}
			set := make(chan error, 1)
			go func() { set <- g.Set(t.Context(), "a", Entry[int]{Value: 1}) }()
			synctest.Wait()
			require.Error(t, g.Delete(within(t, time.Millisecond), "a"))
			require.NoError(t, <-set)
			require.Equal(t, 1, g.stats().Pending)
			_, _, err := g.Get(t.Context(), "a")
			require.ErrorIs(t, err, errAway)
			s.breaks()
			time.Sleep(2 * time.Second)
			require.Zero(t, g.stats().Pending)
			_, ok := s.held("a")
			require.False(t, ok)
		})
	}
}

// A write that pays the last debt says that its key is well, not that the store is.
func TestGuardStaysAwayWhenAWriteThatBeganBeforeSucceeds(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		s.breaksFor(func(op, _ string) fault {
			return fault{hang: op != "set", latency: 50 * time.Millisecond}
		})
		require.Error(t, g.Delete(within(t, time.Millisecond), "a"))
		set := make(chan error, 1)
		go func() { set <- g.Set(t.Context(), "a", Entry[int]{Value: 1}) }()
		synctest.Wait()
		s.breaks(fault{err: errDown})
		_, _, err := g.Get(t.Context(), "b")
		require.ErrorIs(t, err, errDown)
		require.NoError(t, <-set)
		require.Zero(t, g.stats().Pending)
		_, _, err = g.Get(t.Context(), "b")
		require.ErrorIs(t, err, errAway)
		s.breaks()
	})
}

// The store comes back with the deletes made that were owed when it answered. A later one holds back its key alone.
func TestGuardRefusesAKeyThatCameToBeOwedDuringTheFlush(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		require.NoError(t, g.Set(t.Context(), "b", Entry[int]{Value: 1}))
		s.breaks(fault{err: errDown})
		require.Error(t, g.Delete(t.Context(), "a"))
		s.breaksFor(only("delete", fault{latency: 100 * time.Millisecond}))
		time.Sleep(minPause)
		require.ErrorIs(t, g.Delete(t.Context(), "b"), errAway)
		time.Sleep(100 * time.Millisecond)
		require.Equal(t, guardStats{Pending: 1, Failures: 1}, g.stats())
		_, _, err := g.Get(t.Context(), "b")
		require.ErrorIs(t, err, errAway)
		_, _, err = g.Get(t.Context(), "a")
		require.NoError(t, err)
	})
}

// The key fails again while its owed delete is on the way: that delete may have come before the second failure.
func TestGuardStillOwesADeleteThatFailedDuringTheFlush(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		s.breaksFor(only("delete", fault{latency: 100 * time.Millisecond}))
		require.Error(t, g.Delete(within(t, time.Millisecond), "a"))
		synctest.Wait()
		require.Equal(t, 2, s.count("delete"), "the flush is under way")
		require.Error(t, g.Delete(within(t, time.Millisecond), "a"))
		time.Sleep(100 * time.Millisecond)
		require.Equal(t, 1, g.stats().Pending)
		time.Sleep(time.Second)
		require.Zero(t, g.stats().Pending)
		require.Equal(t, 4, s.count("delete"))
	})
}

// A Set that its caller gave up arrives after its key was deleted, and even after another process deleted it.
func TestGuardDeletesAgainWhatASetLeavesThatArrivesLate(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		for _, key := range []string{"a", "b"} {
			s.breaksFor(only("set", fault{hang: true, late: lateness - time.Second}))
			require.Error(t, g.Set(t.Context(), key, Entry[int]{Value: 1}))
			s.breaks()
			time.Sleep(time.Second)
			require.NoError(t, g.Delete(t.Context(), key))
			_, _, err := g.Get(t.Context(), key)
			require.NoError(t, err, "meanwhile the key is in use")
		}
		require.Equal(t, guardStats{Pending: 2, Failures: 2}, g.stats())
		s.late.Wait()
		_, ok := s.held("b")
		require.True(t, ok)
		synctest.Wait()
		_, ok = s.held("a")
		require.False(t, ok, "a was set a second earlier")
		time.Sleep(time.Second + guardTimeout)
		_, ok = s.held("b")
		require.False(t, ok)
		require.Equal(t, guardStats{Failures: 2}, g.stats())
	})
}

// Nobody holds a lease whose answer was lost, and one whose fill could not be sent is of no more use. Neither may keep
// the key from being loaded until it lapses.
func TestGuardFreesALeaseThatWasLost(t *testing.T) {
	lost := map[string]func(*testing.T, *guard[string, int], *faultyStore){
		"by its grant": func(t *testing.T, g *guard[string, int], s *faultyStore) {
			s.breaks(fault{hang: true, done: true})
			_, err := g.Lease(t.Context(), "a", 0)
			require.Error(t, err)
		},
		"by its fill": func(t *testing.T, g *guard[string, int], s *faultyStore) {
			l := lease(t, g, "a")
			s.breaks(fault{err: errDown})
			_, err := l.Fill(t.Context(), Entry[int]{})
			require.ErrorIs(t, err, errDown)
		},
		"by its release while away": func(t *testing.T, g *guard[string, int], s *faultyStore) {
			l := lease(t, g, "a")
			s.breaks(fault{err: errDown})
			_, _, err := g.Get(t.Context(), "b")
			require.ErrorIs(t, err, errDown)
			require.ErrorIs(t, l.Release(t.Context()), errAway)
		},
	}
	for name, lose := range lost {
		t.Run(name, func(t *testing.T) {
			guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
				lose(t, g, s)
				s.breaks()
				time.Sleep(time.Second)
				grant, err := g.Lease(t.Context(), "a", 0)
				require.NoError(t, err)
				require.NotNil(t, grant.Lease)
			})
		})
	}
}

func TestGuardSaysWhichDeletesItCannotRemember(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		s.breaks(fault{err: errDown})
		for i := range maxDebts {
			err := g.Delete(t.Context(), strconv.Itoa(i))
			require.ErrorIs(t, err, ErrStore)
			require.NotContains(t, err.Error(), "TTL")
		}
		for range 2 {
			err := g.Delete(t.Context(), "one more")
			require.ErrorIs(t, err, errAway)
			require.ErrorContains(t, err, "10000 keys already wait to be deleted, so an older entry of this one may be served until its TTL ends: repeat")
		}
		require.NotContains(t, g.Delete(t.Context(), "0").Error(), "TTL", "a key that is remembered needs no room")
		require.Equal(t, guardStats{Away: true, Pending: maxDebts, Failures: 1, Forgotten: 2}, g.stats())
		s.breaks()
		time.Sleep(time.Second)
		require.Equal(t, guardStats{Failures: 1, Forgotten: 2}, g.stats())
	})
}

func TestGuardMakesWhatIsOwedWhenItIsClosed(t *testing.T) {
	guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
		require.NoError(t, g.Set(t.Context(), "a", Entry[int]{}))
		s.breaksFor(func(op, _ string) fault {
			return fault{hang: op == "delete", latency: 20 * time.Millisecond}
		})
		cancelled, cancel := context.WithCancel(t.Context())
		time.AfterFunc(30*time.Millisecond, cancel)
		require.ErrorIs(t, g.Delete(cancelled, "a"), context.Canceled)
		synctest.Wait()
		s.breaks()
		require.Equal(t, 1, g.stats().Pending, "the mender is still asking whether the store answers")
		g.close()
		_, ok := s.held("a")
		require.False(t, ok)
	})
}

func TestGuardClosesWhileTheStoreHangs(t *testing.T) {
	tests := map[string]struct {
		call func(*testing.T, *guard[string, int])
		max  time.Duration
	}{
		"away":              {func(t *testing.T, g *guard[string, int]) { _ = g.Delete(t.Context(), "a") }, 0},
		"not yet seen away": {func(t *testing.T, g *guard[string, int]) { _ = g.Delete(within(t, 1), "a") }, guardTimeout},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			guarded(t, func(t *testing.T, g *guard[string, int], s *faultyStore) {
				s.breaks(fault{hang: true})
				test.call(t, g)
				synctest.Wait()
				began := time.Now()
				g.close()
				require.LessOrEqual(t, time.Since(began), test.max)
				asked := s.count("")
				time.Sleep(time.Minute)
				require.Equal(t, asked, s.count(""))
			})
		})
	}
}

func TestGuardWithoutTimeoutClosesWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFaultyStore()
		g := newGuard[string, int](s, 0, "users")
		s.breaks(fault{hang: true})
		require.Error(t, g.Delete(within(t, time.Millisecond), "a"))
		began := time.Now()
		g.close()
		require.Equal(t, time.Second, time.Since(began))
	})
}
