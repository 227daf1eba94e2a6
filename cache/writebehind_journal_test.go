package cache_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

var errDisk = errors.New("disk full")

// ledgerJournal keeps its records in memory, in the way that a Journal must, and outlives the caches that use it.
type ledgerJournal struct {
	mu      sync.Mutex
	rows    map[string]write
	last    uint64
	commits [][2]int // how many were added and removed
	// before is called with each commit; an error fails it.
	before func(ctx context.Context, add, written []write) error
}

func newJournal() *ledgerJournal { return &ledgerJournal{rows: map[string]write{}} }

func (j *ledgerJournal) Replay(context.Context) ([]write, uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	pending := slices.SortedFunc(maps.Values(j.rows), func(a, b write) int { return cmp.Compare(a.Seq, b.Seq) })
	return pending, j.last, nil
}

func (j *ledgerJournal) Commit(ctx context.Context, add, written []write) error {
	j.mu.Lock()
	before := j.before
	j.mu.Unlock()
	if before != nil {
		if err := before(ctx, add, written); err != nil {
			return err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.commits = append(j.commits, [2]int{len(add), len(written)})
	for _, w := range add {
		if w.Seq <= j.last {
			return fmt.Errorf("%d after %d", w.Seq, j.last)
		}
		j.rows[w.Key], j.last = w, w.Seq
	}
	for _, w := range written {
		if j.rows[w.Key].Seq == w.Seq {
			delete(j.rows, w.Key)
		}
	}
	return nil
}

func (j *ledgerJournal) onCommit(before func(ctx context.Context, add, written []write) error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.before = before
}

// has returns a copy of what would be replayed.
func (j *ledgerJournal) has() map[string]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	values := map[string]int{}
	for k, w := range j.rows {
		values[k] = w.Value
	}
	return values
}

// durable makes a write-behind cache with the journal, which the test closes.
func (l *ledger) durable(t testing.TB, j cache.Journal[string, int], cfg cache.WriteBehindConfig) *cache.WriteBehind[string, int] {
	b, err := cache.OpenWriteBehind(context.Background(), j, l.load, l.write, cache.Config{Name: "users"}, cfg)
	require.NoError(t, err)
	return b
}

// slowly lets every commit take a second.
func slowly(ctx context.Context, _, _ []write) error {
	select {
	case <-time.After(time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestSetReturnsWhenTheJournalHasTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := newLedger(), newJournal()
		j.before = slowly
		b := l.durable(t, j, cache.WriteBehindConfig{})
		start := time.Now()
		require.NoError(t, b.Set(t.Context(), "k", 1))
		require.Equal(t, time.Second, time.Since(start))
		require.Equal(t, map[string]int{"k": 1}, j.has())
		require.Equal(t, 1, get(t, b, "k"))
		require.Zero(t, l.called())
		require.NoError(t, b.Close(t.Context()))
		require.Empty(t, j.has(), "what is written is removed")
		require.Equal(t, map[string]int{"k": 1}, l.has(t))
	})
}

func TestNothingIsWrittenOrReadBeforeTheJournalHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := newLedger(), newJournal()
		j.before = slowly
		b := l.durable(t, j, cache.WriteBehindConfig{MaxDelay: -1})
		go func() { _ = b.Set(t.Context(), "k", 1) }()
		time.Sleep(time.Second - 1)
		require.Zero(t, l.called())
		_, err := b.Get(t.Context(), "k")
		require.ErrorIs(t, err, errNoRow)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, 1, l.called())
		require.NoError(t, b.Close(t.Context()))
	})
}

func TestCallsThatWaitTogetherShareACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := newLedger(), newJournal()
		j.before = slowly
		b := l.durable(t, j, cache.WriteBehindConfig{MaxDelay: time.Hour})
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				if err := b.Set(t.Context(), fmt.Sprint(i), i); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.LessOrEqual(t, time.Since(start), 2*time.Second)
		require.LessOrEqual(t, len(j.commits), 2)
		require.Len(t, j.has(), 16)
		require.NoError(t, b.Close(t.Context()))
		require.Equal(t, [2]int{0, 16}, j.commits[len(j.commits)-1], "and so do the removals")
	})
}

func TestAWriteThatTheJournalDoesNotTakeIsNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := newLedger(), newJournal()
		b := l.durable(t, j, cache.WriteBehindConfig{})
		require.NoError(t, b.Set(t.Context(), "k", 1))
		j.onCommit(func(context.Context, []write, []write) error { return errDisk })
		err := b.Set(t.Context(), "k", 2)
		require.EqualError(t, err, `cache "users": journal failed: disk full`)
		require.ErrorIs(t, err, cache.ErrJournal)
		require.False(t, err.(*cache.Error).Rejected(), "the outcome is in doubt")
		require.ErrorIs(t, b.Delete(t.Context(), "other"), cache.ErrJournal)
		require.Equal(t, 1, get(t, b, "k"))
		s := b.Stats()
		require.Equal(t, []any{1, uint64(2)}, []any{s.Pending, s.JournalFailures})
		j.onCommit(nil)
		require.NoError(t, b.Close(t.Context()))
		require.Equal(t, map[string]int{"k": 1}, l.has(t))
		require.Empty(t, j.has())
	})
}

func TestAWriteThatCannotBeRecordedFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := newLedger(), newJournal()
		j.before = func(ctx context.Context, add, written []write) error {
			_ = slowly(ctx, add, written)
			if holds(add, "7") {
				return errDisk
			}
			return nil
		}
		b := l.durable(t, j, cache.WriteBehindConfig{})
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				if err := b.Set(t.Context(), fmt.Sprint(i), i); (err != nil) != (i == 7) {
					t.Errorf("%d: %v", i, err)
				}
			})
		}
		wg.Wait()
		require.NoError(t, b.Close(t.Context()))
		require.Len(t, l.has(t), 15)
		require.Empty(t, j.has())
	})
}

// A caller that leaves during the recording does not stop it, and the cache does not stay behind what was accepted.
func TestACallerThatLeavesIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := newLedger(), newJournal()
		l.values["k"] = 1
		b := l.durable(t, j, cache.WriteBehindConfig{MaxDelay: time.Hour})
		require.Equal(t, 1, get(t, b, "k"))
		j.onCommit(slowly)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		start := time.Now()
		err := b.Set(ctx, "k", 2)
		require.Equal(t, 10*time.Millisecond, time.Since(start))
		require.ErrorIs(t, err, cache.ErrJournal)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, get(t, b, "k"))
		time.Sleep(time.Second)
		require.Equal(t, 2, get(t, b, "k"))
		require.NoError(t, b.Close(t.Context()))
		require.Equal(t, map[string]int{"k": 2}, l.has(t))
	})
}

func TestTheNextProcessTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := newLedger(), newJournal()
		l.values["gone"] = 1
		l.refuseWith(func(context.Context, []write) error { return errSource })
		b := l.durable(t, j, cache.WriteBehindConfig{})
		for i := range 20 {
			require.NoError(t, b.Set(t.Context(), fmt.Sprint(i%10), i))
		}
		require.NoError(t, b.Delete(t.Context(), "gone"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := b.Close(ctx)
		require.ErrorIs(t, err, cache.ErrUnwritten)
		require.ErrorContains(t, err, "11 left, of which 0 refused, kept in the journal for the next start")
		require.ErrorIs(t, err, errSource)

		l.refuseWith(nil)
		next := l.durable(t, j, cache.WriteBehindConfig{MaxPending: 5, MaxDelay: time.Hour, RejectWhenFull: true})
		require.Equal(t, 11, next.Stats().Pending, "also when they are more than fit")
		require.Equal(t, 13, get(t, next, "3"))
		_, err = next.Get(t.Context(), "gone")
		require.ErrorIs(t, err, cache.ErrNotFound)
		require.ErrorIs(t, next.Set(t.Context(), "new", 1), cache.ErrFull)
		require.NoError(t, next.Set(t.Context(), "3", 99))
		require.NoError(t, next.Flush(t.Context()))
		require.Equal(t, 99, l.has(t)["3"])
		require.NotContains(t, l.has(t), "gone")
		require.NoError(t, next.Close(t.Context()))
		require.Empty(t, j.has())

		third := l.durable(t, j, cache.WriteBehindConfig{})
		require.NoError(t, third.Set(t.Context(), "3", 100), "its Seq is above all before, or the ledger would object")
		require.NoError(t, third.Close(t.Context()))
		require.Equal(t, 100, l.has(t)["3"])
	})
}

// While a write is in flight a newer one of its key is recorded. The removal of the older leaves that record alone.
func TestARemovalSparesTheNewerRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := newLedger(), newJournal()
		l.refuse = func(context.Context, []write) error { time.Sleep(time.Second); return nil }
		b := l.durable(t, j, cache.WriteBehindConfig{MaxDelay: time.Hour})
		require.NoError(t, b.Set(t.Context(), "k", 1))
		flushed := make(chan error, 1)
		go func() { flushed <- b.Flush(t.Context()) }()
		synctest.Wait()
		require.NoError(t, b.Set(t.Context(), "k", 2))
		require.NoError(t, <-flushed)
		synctest.Wait()
		require.Equal(t, map[string]int{"k": 1}, l.has(t))
		require.Equal(t, map[string]int{"k": 2}, j.has())
		require.Equal(t, [2]int{0, 1}, j.commits[len(j.commits)-1])
		require.NoError(t, b.Close(t.Context()))
	})
}

func TestRemovalsThatFailAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := newLedger(), newJournal()
		b := l.durable(t, j, cache.WriteBehindConfig{})
		require.NoError(t, b.Set(t.Context(), "k", 1))
		j.onCommit(func(_ context.Context, _, written []write) error {
			if len(written) > 0 {
				return errDisk
			}
			return nil
		})
		require.NoError(t, b.Flush(t.Context()))
		require.NoError(t, b.Set(t.Context(), "other", 1), "records do not fail because of removals")
		time.Sleep(time.Minute)
		require.Equal(t, map[string]int{"k": 1, "other": 1}, j.has())
		require.InDelta(t, 15, b.Stats().JournalFailures, 10)
		j.onCommit(nil)
		time.Sleep(10 * time.Second)
		require.Empty(t, j.has())
		require.NoError(t, b.Close(t.Context()))
	})
}

func TestDiscardedWritesAreNotReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := newLedger(), newJournal()
		l.refuse = func(context.Context, []write) error { return refusal{} }
		b := l.durable(t, j, cache.WriteBehindConfig{})
		require.NoError(t, b.Set(t.Context(), "kept", 1))
		require.NoError(t, b.Set(t.Context(), "given up", 1))
		time.Sleep(time.Second)
		require.NoError(t, b.Discard(t.Context(), "given up"))
		err := b.Close(t.Context())
		require.ErrorContains(t, err, "1 left, of which 1 refused, kept in the journal for the next start: violates a constraint")
		require.Equal(t, map[string]int{"kept": 1}, j.has())
	})
}

func TestCloseDrainsWhatIsBeingRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := newLedger(), newJournal()
		j.before = slowly
		b := l.durable(t, j, cache.WriteBehindConfig{})
		set := make(chan error, 1)
		go func() { set <- b.Set(t.Context(), "k", 1) }()
		synctest.Wait()
		require.NoError(t, b.Close(t.Context()))
		require.NoError(t, <-set)
		require.Equal(t, map[string]int{"k": 1}, l.has(t))
		require.Empty(t, j.has())
	})
}

// A journal that hangs does not hold Close beyond its context, as far as the journal obeys its own.
func TestCloseEndsAJournalThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := newLedger(), newJournal()
		j.before = func(ctx context.Context, _, _ []write) error { <-ctx.Done(); return ctx.Err() }
		b := l.durable(t, j, cache.WriteBehindConfig{})
		set := make(chan error, 1)
		go func() { set <- b.Set(t.Context(), "k", 1) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		require.NoError(t, b.Close(ctx), "nothing had been accepted")
		require.Equal(t, time.Second, time.Since(start))
		require.ErrorIs(t, <-set, cache.ErrJournal)
	})
}

func TestAJournalThatCannotBeReadIsAnError(t *testing.T) {
	l := newLedger()
	_, err := cache.OpenWriteBehind(t.Context(), unreadable{}, l.load, l.write, cache.Config{Name: "users"}, cache.WriteBehindConfig{})
	require.EqualError(t, err, `cache "users": journal failed: disk full`)
}

type unreadable struct{ cache.Journal[string, int] }

func (unreadable) Replay(context.Context) ([]write, uint64, error) { return nil, 0, errDisk }
