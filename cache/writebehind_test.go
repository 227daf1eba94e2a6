package cache_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

type write = cache.Write[string, int]

// ledger is a source that checks how it is written to and remembers it.
type ledger struct {
	mu     sync.Mutex
	values map[string]int
	seqs   map[string]uint64
	calls  [][]write
	times  []time.Time
	faults []string
	busy   atomic.Bool
	// refuse decides what becomes of a batch, before anything of it is stored.
	refuse func(context.Context, []write) error
}

func newLedger() *ledger {
	return &ledger{values: map[string]int{}, seqs: map[string]uint64{}}
}

var errNoRow = errors.New("no such row")

func (l *ledger) load(_ context.Context, key string) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.values[key]
	if !ok {
		return 0, errNoRow
	}
	return v, nil
}

func (l *ledger) write(ctx context.Context, writes []write) error {
	if !l.busy.CompareAndSwap(false, true) {
		l.fault("two calls of the writer at once")
	}
	defer l.busy.Store(false)
	l.mu.Lock()
	l.calls = append(l.calls, slices.Clone(writes))
	l.times = append(l.times, time.Now())
	refuse := l.refuse
	l.mu.Unlock()
	if refuse != nil {
		if err := refuse(ctx, writes); err != nil {
			return err
		}
	}
	l.store(writes)
	return nil
}

func (l *ledger) store(writes []write) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]bool{}
	for _, w := range writes {
		if seen[w.Key] {
			l.faults = append(l.faults, w.Key+" twice in a batch")
		}
		if seen[w.Key] = true; w.Seq <= l.seqs[w.Key] {
			l.faults = append(l.faults, fmt.Sprintf("%s: write %d after %d", w.Key, w.Seq, l.seqs[w.Key]))
		}
		l.seqs[w.Key] = w.Seq
		if w.Deleted {
			delete(l.values, w.Key)
		} else {
			l.values[w.Key] = w.Value
		}
	}
}

func (l *ledger) fault(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, text)
}

func (l *ledger) refuseWith(refuse func(context.Context, []write) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = refuse
}

// has returns a copy of what the source holds, and fails the test on any fault so far.
func (l *ledger) has(t require.TestingT) map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Empty(t, l.faults)
	return maps.Clone(l.values)
}

// calledAt returns when the calls of the writer began.
func (l *ledger) calledAt(start time.Time) (at []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, call := range l.times {
		at = append(at, call.Sub(start))
	}
	return at
}

func (l *ledger) batch(i int) []write {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[i]
}

func (l *ledger) called() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.calls)
}

// behind makes a write-behind cache over l, which takes everything in the end.
func (l *ledger) behind(t testing.TB, cfg cache.WriteBehindConfig) *cache.WriteBehind[string, int] {
	b := cache.NewWriteBehind(l.load, l.write, cache.Config{Name: "users"}, cfg)
	t.Cleanup(func() {
		l.refuseWith(nil)
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		require.NoError(t, b.Close(ctx))
		l.has(t)
	})
	return b
}

func get(t testing.TB, b *cache.WriteBehind[string, int], key string) int {
	t.Helper()
	v, err := b.Get(context.Background(), key)
	require.NoError(t, err)
	return v
}

func TestWriteBehindGathersWritesForMaxDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		b := l.behind(t, cache.WriteBehindConfig{MaxDelay: time.Second})
		for i := range 30 {
			require.NoError(t, b.Set(t.Context(), string(rune('a'+i%10)), i))
		}
		require.NoError(t, b.Delete(t.Context(), "c"))
		time.Sleep(time.Second - 1)
		require.Zero(t, l.called())
		require.Equal(t, 25, get(t, b, "f"))
		s := b.Stats()
		require.Equal(t, []any{10, time.Second - 1, uint64(21)}, []any{s.Pending, s.Oldest, s.Coalesced})

		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, 1, l.called())
		require.Equal(t, map[string]int{"a": 20, "b": 21, "d": 23, "e": 24, "f": 25, "g": 26, "h": 27, "i": 28, "j": 29}, l.has(t))
		s = b.Stats()
		require.Equal(t, []any{0, time.Duration(0), uint64(10)}, []any{s.Pending, s.Oldest, s.Written})
	})
}

func TestAFullBatchDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		b := l.behind(t, cache.WriteBehindConfig{MaxDelay: time.Hour, MaxBatch: 10})
		for i := range 25 {
			require.NoError(t, b.Set(t.Context(), fmt.Sprint(i), i))
		}
		synctest.Wait()
		require.Len(t, l.has(t), 20)
		require.Equal(t, 2, l.called())
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Len(t, l.has(t), 25)
	})
}

func TestWritesWithoutMaxDelayGoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		b := l.behind(t, cache.WriteBehindConfig{MaxDelay: -1})
		require.NoError(t, b.Set(t.Context(), "k", 1))
		synctest.Wait()
		require.Equal(t, map[string]int{"k": 1}, l.has(t))
		require.Zero(t, b.Stats().Pending)
	})
}

// A write accepted while an older one of its key is in flight waits for its own MaxDelay, not for that of the writes
// after it.
func TestAWriteDuringTheFlightKeepsItsOwnDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.refuse = func(context.Context, []write) error { time.Sleep(600 * time.Millisecond); return nil }
		b := l.behind(t, cache.WriteBehindConfig{MaxDelay: time.Second})
		start := time.Now()
		require.NoError(t, b.Set(t.Context(), "k", 1))
		time.Sleep(1100 * time.Millisecond) // in flight for 100 ms
		require.NoError(t, b.Set(t.Context(), "k", 2))
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, b.Set(t.Context(), "other", 1))
		require.NoError(t, b.Set(t.Context(), "k", 3))
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, []time.Duration{time.Second, 2100 * time.Millisecond}, l.calledAt(start))
		require.Equal(t, 3, l.batch(1)[0].Value)
	})
}

func TestReadsSeePendingWritesThatWereEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		for i := range 100 {
			l.values[fmt.Sprint(i)] = -1
		}
		b := cache.NewWriteBehind(l.load, l.write, cache.Config{MaxEntries: 1}, cache.WriteBehindConfig{MaxDelay: time.Hour, MaxBatch: 1000})
		for i := range 100 {
			if i%2 == 0 {
				require.NoError(t, b.Set(t.Context(), fmt.Sprint(i), i))
			} else {
				require.NoError(t, b.Delete(t.Context(), fmt.Sprint(i)))
			}
		}
		synctest.Wait() // the cache evicts in the background
		require.Less(t, b.Stats().Entries, 10)
		for i := range 100 {
			v, err := b.Get(t.Context(), fmt.Sprint(i))
			if i%2 == 0 {
				require.Equal(t, i, v)
			} else {
				require.ErrorIs(t, err, cache.ErrNotFound)
			}
		}
		require.Zero(t, l.called())
		require.NoError(t, b.Close(t.Context()))
		require.Len(t, l.has(t), 50)
	})
}

func TestADeletedKeyIsWhatTheLoaderSaysOnceTheSourceKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.values["k"] = 1
		b := l.behind(t, cache.WriteBehindConfig{})
		require.Equal(t, 1, get(t, b, "k"))
		require.NoError(t, b.Delete(t.Context(), "k"))
		_, err := b.Get(t.Context(), "k")
		require.EqualError(t, err, `cache "users": not found`)
		require.NoError(t, b.Flush(t.Context()))
		_, err = b.Get(t.Context(), "k")
		require.ErrorIs(t, err, errNoRow)
	})
}

// A load that has read the source before a write neither fills the cache nor is joined by callers that come after it.
func TestALoadFromBeforeAWriteNeverComesAfterIt(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			var loads atomic.Int64
			b := cache.NewWriteBehind(func(context.Context, string) (int, error) {
				if loads.Add(1) == 1 {
					<-release
				}
				return 1, nil
			}, func(context.Context, []write) error { return nil }, cache.Config{}, cache.WriteBehindConfig{MaxDelay: time.Hour})
			go func() { _, _ = b.Get(t.Context(), "k") }()
			synctest.Wait()
			check := func() {
				v, err := b.Get(t.Context(), "k")
				if deleted {
					require.ErrorIs(t, err, cache.ErrNotFound)
				} else {
					require.Equal(t, 2, v)
				}
			}
			if deleted {
				require.NoError(t, b.Delete(t.Context(), "k"))
			} else {
				require.NoError(t, b.Set(t.Context(), "k", 2))
			}
			check()
			close(release)
			synctest.Wait()
			check()
			require.EqualValues(t, 1, loads.Load(), "the source was asked for a pending key")
			require.NoError(t, b.Close(t.Context()))
		})
	}
}

// TestWriteBehindUnderLoad lets writers, readers, evictions and a failing source meet. A reader must never see less than
// what had been accepted when it began, and the source must get each key's values in order, one call at a time.
func TestWriteBehindUnderLoad(t *testing.T) {
	const keys, calls = 20, 5000
	l := newLedger()
	l.refuse = func(context.Context, []write) error {
		if rand.IntN(5) == 0 {
			return errors.New("now and then")
		}
		return nil
	}
	b := cache.NewWriteBehind(l.load, l.write, cache.Config{MaxEntries: keys / 2}, cache.WriteBehindConfig{
		MaxBatch: 7, MaxDelay: -1, MaxPending: keys / 2, RetryMin: time.Microsecond, RetryMax: 10 * time.Microsecond,
	})
	var accepted [keys]atomic.Int64
	var sets atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for v := 1; l.called() < calls; v++ {
				k := rand.IntN(keys/4)*4 + w // always of the same writer
				if err := b.Set(t.Context(), fmt.Sprint(k), v); err != nil {
					t.Error(err)
				}
				accepted[k].Store(int64(v))
				sets.Add(1)
				runtime.Gosched()
			}
		})
		wg.Go(func() {
			for l.called() < calls {
				k := rand.IntN(keys)
				least := accepted[k].Load()
				v, err := b.Get(t.Context(), fmt.Sprint(k))
				if errors.Is(err, errNoRow) {
					v, err = 0, nil
				}
				if err != nil || int64(v) < least {
					t.Errorf("key %d: got %d, %v after %d had been accepted", k, v, err, least)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, b.Close(t.Context()))
	source := l.has(t)
	for k := range keys {
		require.EqualValues(t, accepted[k].Load(), source[fmt.Sprint(k)])
	}
	s := b.Stats()
	require.NotZero(t, s.Coalesced)
	require.NotZero(t, s.Retries)
	require.EqualValues(t, sets.Load(), s.Written+s.Coalesced)
	t.Logf("%d written, %d coalesced, %d retries, %d evictions", s.Written, s.Coalesced, s.Retries, s.Evictions)
}

// Many goroutines write one key: the cache, what is pending and the source end with the same value.
func TestConcurrentWritersOfAKeyLeaveOneValue(t *testing.T) {
	for range 300 {
		l := newLedger()
		b := cache.NewWriteBehind(l.load, l.write, cache.Config{}, cache.WriteBehindConfig{MaxDelay: -1})
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := range 5 {
					if err := b.Set(t.Context(), "k", 10*w+i); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		v := get(t, b, "k")
		require.NoError(t, b.Close(t.Context()))
		require.Equal(t, map[string]int{"k": v}, l.has(t))
	}
}

func TestAFullQueueBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		b := l.behind(t, cache.WriteBehindConfig{MaxPending: 2, MaxDelay: time.Second})
		require.NoError(t, b.Set(t.Context(), "a", 1))
		require.NoError(t, b.Set(t.Context(), "b", 1))
		start := time.Now()
		require.NoError(t, b.Set(t.Context(), "a", 2), "a pending key needs no room")
		require.Zero(t, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, b.Set(ctx, "c", 1))
		require.Equal(t, 300*time.Millisecond, time.Since(start))
		_, err := b.Get(t.Context(), "c")
		require.ErrorIs(t, err, errNoRow, "what was not accepted is not there")

		require.NoError(t, b.Set(t.Context(), "c", 2))
		require.Equal(t, time.Second, time.Since(start))
		require.Equal(t, 2, get(t, b, "c"))
	})
}

func TestAFullQueueRejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		b := l.behind(t, cache.WriteBehindConfig{MaxPending: 2, RejectWhenFull: true})
		require.NoError(t, b.Set(t.Context(), "a", 1))
		require.NoError(t, b.Set(t.Context(), "b", 1))
		require.NoError(t, b.Delete(t.Context(), "a"))
		err := b.Set(t.Context(), "c", 1)
		require.EqualError(t, err, `cache "users": too many writes pending`)
		require.ErrorIs(t, err, cache.ErrFull)
		require.True(t, err.(*cache.Error).Rejected())
		require.False(t, err.(*cache.Error).Permanent())
		require.EqualValues(t, 1, b.Stats().Rejected)
		require.NoError(t, b.Flush(t.Context()))
		require.NoError(t, b.Set(t.Context(), "c", 1))
	})
}

// Whatever room is used and given back, MaxPending keys fit and no more.
func TestRoomIsNeitherLostNorGained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		b := l.behind(t, cache.WriteBehindConfig{MaxPending: 3, MaxDelay: time.Second})
		for range 20 {
			var wg sync.WaitGroup
			for i := range 12 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*time.Second))
					defer cancel()
					_ = b.Set(ctx, fmt.Sprint(i%6), i)
				})
			}
			synctest.Wait()
			require.Equal(t, 3, b.Stats().Pending)
			wg.Wait()
			require.NoError(t, b.Flush(t.Context()))
		}
	})
}
