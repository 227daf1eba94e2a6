package test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

// records is a Journal that keeps nothing.
type records struct{}

func (records) Replay(context.Context) ([]cache.Write[string, int], uint64, error) {
	return nil, 0, nil
}
func (records) Commit(context.Context, []cache.Write[string, int], []cache.Write[string, int]) error {
	return nil
}

func TestWritingBehindAsTheDocsShow(t *testing.T) {
	ctx, journal, saved := t.Context(), records{}, map[string]int{}
	loadViews := func(_ context.Context, id string) (int, error) { return saved[id], nil }
	saveViews := func(_ context.Context, batch []cache.Write[string, int]) error {
		for _, w := range batch {
			saved[w.Key] = w.Value
		}
		return nil
	}
	// docs:
	views, err := cache.OpenWriteBehind(ctx, journal, loadViews, saveViews,
		cache.Config{Name: "views"},
		cache.WriteBehindConfig{MaxBatch: 100, MaxDelay: 200 * time.Millisecond})
	// docs: end
	require.NoError(t, err)
	require.NoError(t, views.Set(ctx, "1", 7))
	require.NoError(t, views.Close(ctx))
	require.Equal(t, map[string]int{"1": 7}, saved)
}
