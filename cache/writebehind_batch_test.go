package cache_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

// What is pending is not asked of the source, which would answer with what was before.
func TestABatchLoaderDoesNotReadPastPendingWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.store([]write{{Key: "set", Value: 1, Seq: 1}, {Key: "deleted", Value: 1, Seq: 2}, {Key: "quiet", Value: 1, Seq: 3}})
		var asked [][]string
		batch := func(_ context.Context, keys []string) (map[string]int, error) {
			asked = append(asked, keys)
			return map[string]int{"set": 1, "deleted": 1, "quiet": 1}, nil
		}
		b := cache.NewWriteBehind(l.load, l.write, cache.Config{}, cache.WriteBehindConfig{MaxDelay: time.Hour}, cache.WithBatchLoader(batch))
		defer func() { require.NoError(t, b.Close(context.Background())) }()
		require.NoError(t, b.Set(t.Context(), "set", 2))
		require.NoError(t, b.Delete(t.Context(), "deleted"))
		b.InvalidateAll()
		got, err := b.GetAll(t.Context(), []string{"set", "deleted", "quiet"})
		require.NoError(t, err)
		require.Equal(t, map[string]int{"set": 2, "quiet": 1}, got)
		require.Equal(t, [][]string{{"quiet"}}, asked)
		b.InvalidateAll()
		got, err = b.GetAll(t.Context(), []string{"set"})
		require.NoError(t, err)
		require.Equal(t, map[string]int{"set": 2}, got)
		require.Len(t, asked, 1, "with nothing left to ask for, nobody is asked")
	})
}
