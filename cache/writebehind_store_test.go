package cache_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

// slowStore takes a while to Set and may fail.
type slowStore struct {
	cache.Store[string, int]
	takes  time.Duration
	broken atomic.Bool
}

func (s *slowStore) Set(ctx context.Context, key string, e cache.Entry[int]) error {
	if s.broken.Load() {
		return errSource
	}
	time.Sleep(s.takes)
	return s.Store.Set(ctx, key, e)
}

func (s *slowStore) holds(t *testing.T, key string) (int, bool) {
	e, ok, err := s.Get(t.Context(), key)
	require.NoError(t, err)
	return e.Value, ok
}

// overStore makes a write-behind cache over a shared store.
func (l *ledger) overStore(t *testing.T, s *slowStore, cfg cache.WriteBehindConfig) *cache.WriteBehind[string, int] {
	s.Store = newFakeStore[string, int]()
	b := cache.NewWriteBehind(l.load, l.write, cache.Config{}, cfg, cache.WithStore[string, int](s))
	t.Cleanup(func() { require.NoError(t, b.Close(context.Background())) })
	return b
}

// Another process finds the store empty before the source is written, and fills it with the old value. That does not
// outlast the write.
func TestTheStoreHasTheWriteOnceTheSourceHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := newLedger(), &slowStore{}
		b := l.overStore(t, s, cache.WriteBehindConfig{MaxDelay: time.Second})
		require.NoError(t, b.Set(t.Context(), "set", 2))
		require.NoError(t, b.Delete(t.Context(), "deleted"))
		v, _ := s.holds(t, "set")
		require.Equal(t, 2, v)
		for _, k := range []string{"set", "deleted"} {
			require.NoError(t, s.Set(t.Context(), k, cache.Entry[int]{Value: 1, TTL: time.Hour}))
		}
		require.NoError(t, b.Flush(t.Context()))
		v, _ = s.holds(t, "set")
		require.Equal(t, 2, v)
		_, ok := s.holds(t, "deleted")
		require.False(t, ok)
	})
}

func TestAStoreThatFailsDoesNotKeepAWriteFromTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := newLedger(), &slowStore{}
		b := l.overStore(t, s, cache.WriteBehindConfig{})
		s.broken.Store(true)
		require.ErrorIs(t, b.Set(t.Context(), "k", 1), cache.ErrStore)
		require.Equal(t, 1, b.Stats().Pending)
		require.Equal(t, 1, get(t, b, "k"))
		require.NoError(t, b.Flush(t.Context()))
		require.Equal(t, map[string]int{"k": 1}, l.has(t))
		require.NotZero(t, b.Stats().StoreFailures)
	})
}

// Writers of a key take turns at a slow store and leave it with the newest value; other keys do not wait for them.
func TestASlowStoreEndsWithTheNewestValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := newLedger(), &slowStore{takes: time.Second}
		b := l.overStore(t, s, cache.WriteBehindConfig{MaxDelay: -1})
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				if err := b.Set(t.Context(), "k", i); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if err := b.Set(t.Context(), fmt.Sprint(i), i); err != nil || time.Since(start) > 2*time.Second {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			})
		}
		wg.Wait()
		require.LessOrEqual(t, time.Since(start), 3*time.Second, "waiting writers share a turn")
		v, _ := s.holds(t, "k")
		require.NoError(t, b.Flush(t.Context()))
		require.Equal(t, v, l.has(t)["k"])
		again, _ := s.holds(t, "k")
		require.Equal(t, v, again)
	})
}
