package sqlitejournal_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/cache"
)

// BenchmarkDurableSet compares a durable Set with SQLite doing the same by hand, as durably: the same row in a
// transaction of its own, and what sharing a transaction could save at best, sixteen rows in one.
func BenchmarkDurableSet(b *testing.B) {
	const keys = 1000
	ctx := context.Background()
	for _, goroutines := range []int{1, 16} {
		b.Run(fmt.Sprintf("writebehind/%d", goroutines), func(b *testing.B) {
			j := openAt[string, int](b, filepath.Join(b.TempDir(), "j"))
			c, err := cache.OpenWriteBehind(ctx, j, func(context.Context, string) (int, error) { return 0, nil },
				func(context.Context, []write) error { return nil }, cache.Config{}, cache.WriteBehindConfig{})
			require.NoError(b, err)
			b.ReportAllocs()
			b.ResetTimer()
			together(b, goroutines, func(i int) error { return c.Set(ctx, fmt.Sprint("key-", i%keys), i) })
			b.StopTimer()
			require.NoError(b, c.Close(ctx))
		})
		b.Run(fmt.Sprintf("insert/%d", goroutines), func(b *testing.B) {
			insert := byHand(b, 1)
			together(b, goroutines, insert)
		})
	}
	b.Run("insert-16-together", func(b *testing.B) {
		insert := byHand(b, 16)
		b.ReportAllocs()
		for i := 0; i < b.N; i += 16 {
			require.NoError(b, insert(i))
		}
	})
}

// byHand returns a function that stores n rows in a transaction.
func byHand(b *testing.B, n int) func(i int) error {
	db, err := sqlite.Open(filepath.Join(b.TempDir(), "a.db"), sqlite.Config{})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, db.Close()) })
	_, err = db.ExecContext(b.Context(), `CREATE TABLE t (key BLOB PRIMARY KEY, seq INTEGER, deleted INTEGER, value BLOB)`)
	require.NoError(b, err)
	b.ResetTimer()
	return func(first int) error {
		tx, err := db.BeginTx(context.Background(), nil)
		if err != nil {
			return err
		}
		for i := first; i < first+n; i++ {
			value, err := json.Marshal(i)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(context.Background(), `INSERT INTO t VALUES (?, ?, ?, ?)
				ON CONFLICT (key) DO UPDATE SET seq = excluded.seq, deleted = excluded.deleted, value = excluded.value`,
				[]byte(fmt.Sprint("key-", i%1000)), i, false, value); err != nil {
				return err
			}
		}
		return tx.Commit()
	}
}

// together spreads b.N calls over goroutines.
func together(b *testing.B, goroutines int, call func(i int) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
				if err := call(i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
