package cache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

// refusal is an error of a source that will not have a write.
type refusal struct{}

func (refusal) Error() string   { return "violates a constraint" }
func (refusal) Permanent() bool { return true }

// busy is an error of a source that asks for time.
type busy struct{ rejected bool }

func (busy) Error() string             { return "busy" }
func (busy) RetryAfter() time.Duration { return time.Minute }
func (e busy) Rejected() bool          { return e.rejected }

func holds(writes []write, key string) bool {
	return slices.ContainsFunc(writes, func(w write) bool { return w.Key == key })
}

// While the source is down, nothing is dropped, reads go on, and the source is not hammered.
func TestAnOutageLosesNothingAndIsLeftInPeace(t *testing.T) {
	const keys = 1000
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.refuse = func(context.Context, []write) error { return errSource }
		b := l.behind(t, cache.WriteBehindConfig{})
		for i := range keys {
			require.NoError(t, b.Set(t.Context(), fmt.Sprint(i), i))
		}
		time.Sleep(time.Hour)
		// Ten first attempts, and then about one retry in 7.5 s, the mean of a shortened RetryMax.
		require.InDelta(t, 480, l.called(), 120)
		require.Equal(t, keys, b.Stats().Pending)
		require.Equal(t, 7, get(t, b, "7"))
		before := l.called()
		l.refuseWith(nil)
		time.Sleep(20 * time.Second)
		require.Zero(t, b.Stats().Pending, "everything is written within two RetryMax")
		require.Len(t, l.has(t), keys)
		require.Less(t, l.called()-before, keys, "batches were not split into single writes")
	})
}

// One key fails, as if for ever, with an error that does not say so. The others of its batch are written while it is
// searched for, and later writes do not notice.
func TestAFailingKeyDelaysOnlyItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.refuse = func(_ context.Context, writes []write) error {
			if holds(writes, "poison") {
				return errSource
			}
			return nil
		}
		b := l.behind(t, cache.WriteBehindConfig{})
		require.NoError(t, b.Set(t.Context(), "poison", 1))
		for i := range 99 {
			require.NoError(t, b.Set(t.Context(), fmt.Sprint(i), i))
		}
		// At most 7 failures in a row find one in a hundred: 50 ms doubled 6 times.
		time.Sleep(7 * time.Second)
		require.Equal(t, 1, b.Stats().Pending)
		require.Len(t, l.has(t), 99)

		time.Sleep(10 * time.Minute)
		before := l.called()
		time.Sleep(10 * time.Minute)
		require.InDelta(t, 80, l.called()-before, 20, "its own backoff has grown to RetryMax")
		start := time.Now()
		require.NoError(t, b.Set(t.Context(), "new", 1))
		for l.has(t)["new"] == 0 {
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, time.Since(start), 101*time.Millisecond)
		require.Equal(t, 1, get(t, b, "poison"))
		l.refuseWith(nil)
		time.Sleep(10 * time.Second)
		require.Equal(t, 1, l.has(t)["poison"])
	})
}

// Several failing keys that come one after the other do not hold up the innocent ones of later batches either.
func TestOldFailuresDoNotSlowTheSearchForNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.refuse = func(_ context.Context, writes []write) error {
			if slices.ContainsFunc(writes, func(w write) bool { return w.Value < 0 }) {
				return errSource
			}
			return nil
		}
		b := l.behind(t, cache.WriteBehindConfig{MaxBatch: 10})
		for i := range 10 {
			require.NoError(t, b.Set(t.Context(), fmt.Sprint("poison", i), -1))
		}
		time.Sleep(time.Hour)
		require.NoError(t, b.Set(t.Context(), "sign of life", 1)) // or the source would look down as a whole
		time.Sleep(time.Second)
		for i := range 9 {
			require.NoError(t, b.Set(t.Context(), fmt.Sprint(i), i))
		}
		require.NoError(t, b.Set(t.Context(), "poison", -1))
		time.Sleep(2 * time.Second) // 50 ms doubled 4 times, and some turns of the old ones
		require.Len(t, l.has(t), 10)
	})
}

func TestARefusedWriteIsKeptAndReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.refuse = func(_ context.Context, writes []write) error {
			if slices.ContainsFunc(writes, func(w write) bool { return w.Value < 0 }) {
				return refusal{}
			}
			return nil
		}
		b := l.behind(t, cache.WriteBehindConfig{})
		for _, k := range []string{"a", "b", "c", "d", "e"} {
			require.NoError(t, b.Set(t.Context(), k, -1))
		}
		for i := range 90 {
			require.NoError(t, b.Set(t.Context(), fmt.Sprint(i), i))
		}
		start := time.Now()
		err := b.Flush(t.Context())
		require.ErrorIs(t, err, cache.ErrUnwritten)
		require.ErrorIs(t, err, refusal{})
		require.EqualError(t, err, `cache "users": not everything has been written: 5 left, of which 5 refused, still pending: violates a constraint`)
		require.Zero(t, time.Since(start), "a source that answers is not waited for")
		require.Len(t, l.has(t), 90)
		s := b.Stats()
		require.Equal(t, []any{5, 5}, []any{s.Pending, s.Refused})
		require.Equal(t, refusal{}, b.Refused()["e"])
		require.Len(t, b.Refused(), 5)
		require.Equal(t, -1, get(t, b, "a"), "it was accepted")

		before := l.called()
		time.Sleep(time.Hour)
		require.Equal(t, before, l.called(), "nobody tries again unasked")

		require.NoError(t, b.Set(t.Context(), "a", 1)) // replaced
		require.NoError(t, b.Delete(t.Context(), "b"))
		require.NoError(t, b.Discard(t.Context(), "c")) // given up
		require.NoError(t, b.Discard(t.Context(), "0"), "nothing to discard")
		_, err = b.Get(t.Context(), "c")
		require.ErrorIs(t, err, errNoRow)
		time.Sleep(time.Second)
		require.Equal(t, 1, l.has(t)["a"])
		require.Len(t, b.Refused(), 2)

		l.refuseWith(nil) // repaired
		require.NoError(t, b.Flush(t.Context()))
		require.Equal(t, []int{-1, -1}, []int{l.has(t)["d"], l.has(t)["e"]})
		require.NotContains(t, l.has(t), "c")
		require.Zero(t, b.Stats().Pending)
	})
}

// A newer write that was accepted while the refused one was in flight is tried in its stead, after its own delay.
func TestARefusalDoesNotHitANewerWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.refuse = func(_ context.Context, writes []write) error {
			time.Sleep(10 * time.Millisecond)
			if writes[0].Value < 0 {
				return refusal{}
			}
			return nil
		}
		b := l.behind(t, cache.WriteBehindConfig{})
		require.NoError(t, b.Set(t.Context(), "k", -1))
		time.Sleep(105 * time.Millisecond)
		require.NoError(t, b.Set(t.Context(), "k", 1))
		time.Sleep(99 * time.Millisecond)
		require.Equal(t, 1, l.called())
		require.Empty(t, b.Refused())
		time.Sleep(20 * time.Millisecond)
		require.Equal(t, map[string]int{"k": 1}, l.has(t))
	})
}

// A writer behind an open breaker or a source that asks for time is not searched for a poison key, and not called
// before its time.
func TestAskingForTimeIsObeyed(t *testing.T) {
	for _, rejected := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger()
			b := l.behind(t, cache.WriteBehindConfig{})
			start := time.Now()
			l.refuseWith(func(context.Context, []write) error {
				if time.Since(start) < time.Minute {
					return busy{rejected}
				}
				return nil
			})
			for i := range 10 {
				require.NoError(t, b.Set(t.Context(), fmt.Sprint(i), i))
			}
			time.Sleep(time.Second)
			require.NoError(t, b.Set(t.Context(), "later", 1))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, b.Flush(ctx), cache.ErrUnwritten)
			time.Sleep(58 * time.Second)
			require.Equal(t, 1, l.called())
			time.Sleep(time.Second)
			synctest.Wait()
			require.Len(t, l.has(t), 11)
			if rejected {
				require.Len(t, l.batch(1), 10, "it stayed whole")
				require.Equal(t, 3, l.called())
			}
		})
	}
}

func TestAWriterThatPanicsOrExitsIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		b := l.behind(t, cache.WriteBehindConfig{MaxDelay: -1})
		for _, c := range []struct {
			fail func()
			text string
		}{
			{func() { panic("no such table") }, "the writer panicked: no such table"},
			{func() { panic(errSource) }, "the writer panicked: source failed"},
			{runtime.Goexit, "the writer called runtime.Goexit"},
		} {
			l.refuseWith(func(context.Context, []write) error { c.fail(); return nil })
			require.NoError(t, b.Set(t.Context(), "k", 1))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := b.Flush(ctx)
			cancel()
			require.ErrorContains(t, err, c.text)
			require.ErrorContains(t, err, "1 left, of which 0 refused, still pending: context deadline exceeded")
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		l.refuseWith(nil)
		require.NoError(t, b.Flush(t.Context()))
		require.Equal(t, map[string]int{"k": 1}, l.has(t))
	})
}

func TestAWriterThatHangsIsGivenUpOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		b := l.behind(t, cache.WriteBehindConfig{MaxDelay: -1, WriteTimeout: 3 * time.Second})
		l.refuseWith(func(ctx context.Context, _ []write) error { <-ctx.Done(); return ctx.Err() })
		start := time.Now()
		require.NoError(t, b.Set(t.Context(), "k", 1))
		require.Zero(t, time.Since(start))
		time.Sleep(time.Second)
		l.refuseWith(nil)
		require.NoError(t, b.Flush(t.Context()))
		require.Zero(t, l.calledAt(start)[0])
		require.InDelta(t, 3*time.Second+40*time.Millisecond, l.calledAt(start)[1], float64(15*time.Millisecond), "the timeout, and RetryMin")
	})
}

func TestFlushWaitsForWhatWasAcceptedBeforeOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.refuse = func(context.Context, []write) error { time.Sleep(time.Second); return nil }
		b := l.behind(t, cache.WriteBehindConfig{MaxDelay: time.Hour, MaxBatch: 1})
		require.NoError(t, b.Flush(t.Context()), "nothing is pending")
		for i := range 3 {
			require.NoError(t, b.Set(t.Context(), fmt.Sprint(i), 1)) // batches of one: they are on their way at once
		}
		synctest.Wait()
		require.NoError(t, b.Set(t.Context(), "0", 2)) // its older write is in flight
		start := time.Now()
		go func() {
			for i := range 20 { // keeps coming
				time.Sleep(300 * time.Millisecond)
				_ = b.Set(t.Context(), fmt.Sprint("later", i), 1)
			}
		}()
		require.NoError(t, b.Flush(t.Context()))
		require.Equal(t, 4*time.Second, time.Since(start))
		require.Equal(t, []int{2, 1, 1}, []int{l.has(t)["0"], l.has(t)["1"], l.has(t)["2"]})
		require.NotZero(t, b.Stats().Pending)
		time.Sleep(time.Minute)
	})
}

func TestFlushDoesNotWaitForDelaysNorBackoffs(t *testing.T) {
	for _, c := range []struct {
		name          string
		failed, fresh []string
	}{
		{"fresh", nil, []string{"a", "b"}},
		{"alone", []string{"a"}, nil},
		{"together", []string{"a", "b", "c"}, nil},
		{"mixed", []string{"a", "b", "c"}, []string{"d", "e"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLedger()
				b := l.behind(t, cache.WriteBehindConfig{RetryMin: time.Hour, RetryMax: time.Hour, MaxDelay: time.Minute})
				l.refuseWith(func(context.Context, []write) error { return errSource })
				for _, k := range c.failed {
					require.NoError(t, b.Set(t.Context(), k, 1))
				}
				time.Sleep(90 * time.Second)
				require.Equal(t, min(1, len(c.failed)), l.called())
				for _, k := range c.fresh {
					require.NoError(t, b.Set(t.Context(), k, 1))
				}
				l.refuseWith(nil)
				start := time.Now()
				require.NoError(t, b.Flush(t.Context()))
				require.Zero(t, time.Since(start))
				require.Len(t, l.has(t), len(c.failed)+len(c.fresh))
			})
		})
	}
}

func TestAFlushThatGaveUpLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		b := l.behind(t, cache.WriteBehindConfig{})
		l.refuseWith(func(context.Context, []write) error { return errSource })
		require.NoError(t, b.Set(t.Context(), "k", 1))
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := b.Flush(ctx)
			cancel()
			require.ErrorContains(t, err, "1 left")
			require.ErrorIs(t, err, errSource)
			require.Zero(t, b.Marks())
		}
		l.refuseWith(nil)
		require.NoError(t, b.Flush(t.Context()))
	})
}

func TestCloseDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		b := cache.NewWriteBehind(l.load, l.write, cache.Config{}, cache.WriteBehindConfig{MaxDelay: time.Hour, MaxBatch: 10})
		for i := range 55 {
			require.NoError(t, b.Set(t.Context(), fmt.Sprint(i), i))
		}
		require.NoError(t, b.Close(t.Context()))
		require.Len(t, l.has(t), 55)
		require.ErrorIs(t, b.Set(t.Context(), "k", 1), cache.ErrClosed)
		require.ErrorIs(t, b.Delete(t.Context(), "k"), cache.ErrClosed)
		require.ErrorIs(t, b.Flush(t.Context()), cache.ErrClosed)
		require.ErrorIs(t, b.Discard(t.Context(), "k"), cache.ErrClosed)
		_, err := b.Get(t.Context(), "1")
		require.ErrorIs(t, err, cache.ErrClosed)
		require.NoError(t, b.Close(t.Context()))
	})
}

func TestCloseSaysWhatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.refuse = func(ctx context.Context, _ []write) error { <-ctx.Done(); return ctx.Err() }
		b := cache.NewWriteBehind(l.load, l.write, cache.Config{Name: "users"}, cache.WriteBehindConfig{MaxPending: 3, WriteTimeout: -1})
		for i := range 3 {
			require.NoError(t, b.Set(t.Context(), fmt.Sprint(i), i))
		}
		blocked := make(chan error, 1)
		go func() { blocked <- b.Set(t.Context(), "k", 1) }()
		synctest.Wait()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		second := make(chan error, 1)
		time.AfterFunc(time.Millisecond, func() {
			require.Equal(t, 0, get(t, b, "0"), "reads go on while it drains")
			second <- b.Close(t.Context())
		})
		err := b.Close(ctx)
		require.Equal(t, time.Second, time.Since(start))
		require.EqualError(t, err, `cache "users": not everything has been written: 3 left, of which 0 refused, lost for want of a journal: context deadline exceeded`)
		require.ErrorIs(t, <-blocked, cache.ErrClosed)
		require.Equal(t, err, <-second)
	})
}

func TestCloseThatWaitsForAnotherObeysItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.refuse = func(context.Context, []write) error { time.Sleep(time.Minute); return nil }
		b := cache.NewWriteBehind(l.load, l.write, cache.Config{}, cache.WriteBehindConfig{})
		require.NoError(t, b.Set(t.Context(), "k", 1))
		first := make(chan error, 1)
		go func() { first <- b.Close(t.Context()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, b.Close(ctx))
		require.NoError(t, <-first)
	})
}

func TestErrorsOfTheWriterThatOnlyWrapAreNotAskedForBehaviour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		b := l.behind(t, cache.WriteBehindConfig{})
		l.refuseWith(func(context.Context, []write) error { return errors.Join(refusal{}) })
		require.NoError(t, b.Set(t.Context(), "k", 1))
		time.Sleep(time.Second)
		require.Empty(t, b.Refused())
	})
}

func TestWriteBehindRefusesKeysAndContextsThatHaveEnded(t *testing.T) {
	l := newLedger()
	b := cache.NewWriteBehind(func(context.Context, any) (int, error) { return 0, nil },
		func(context.Context, []cache.Write[any, int]) error { return nil }, cache.Config{}, cache.WriteBehindConfig{})
	nan := 0.0
	require.ErrorIs(t, b.Set(t.Context(), nan/nan, 1), cache.ErrKey)
	require.Panics(t, func() { _ = b.Set(t.Context(), []int{}, 1) }, "the key cannot be compared")
	require.NoError(t, b.Set(t.Context(), 1, 1), "and nothing is held after the panic")
	require.NoError(t, b.Close(t.Context()))

	plain := l.behind(t, cache.WriteBehindConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, context.Canceled, plain.Set(ctx, "k", 1))
	require.Zero(t, plain.Stats().Pending)
}
