package sqlite_test

import (
	"context"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
)

// BenchmarkSagaThreeSteps is a saga of three steps from Start to the return of Wait, by 1 and by 16 clients. The floor is
// the same number of durable commits of one row by one client.
func BenchmarkSagaThreeSteps(b *testing.B) {
	nothing := func(context.Context, *parcel) error { return nil }
	step := func(name string) saga.Step[parcel] { return saga.Step[parcel]{Name: name, Do: nothing} }
	d := saga.MustDefine("bench", 1, step("1"), step("2"), step("3"))
	b.Run("floor", func(b *testing.B) {
		_, db := sagaStore(b, filepath.Join(b.TempDir(), "saga.db"))
		_, err := db.ExecContext(b.Context(), `CREATE TABLE floor (n INTEGER PRIMARY KEY, text TEXT)`)
		require.NoError(b, err)
		for b.Loop() {
			for range 4 {
				_, err := db.ExecContext(b.Context(), `INSERT INTO floor (text) VALUES (?)`, "some text")
				require.NoError(b, err)
			}
		}
	})
	for _, clients := range []int{1, 16} {
		b.Run(strconv.Itoa(clients)+" clients", func(b *testing.B) {
			store, _ := sagaStore(b, filepath.Join(b.TempDir(), "saga.db"))
			r, err := saga.NewRunner(store, saga.Config{}, d)
			require.NoError(b, err)
			ctx, cancel := context.WithCancel(b.Context())
			stopped := make(chan error)
			go func() { stopped <- r.Run(ctx) }()
			var n atomic.Int64
			b.SetParallelism(max(1, clients/2))
			b.ReportAllocs()
			one := func() {
				id := strconv.FormatInt(n.Add(1), 10)
				require.NoError(b, saga.Start(ctx, r, d, id, parcel{}))
				_, err := saga.Wait(ctx, r, d, id)
				require.NoError(b, err)
			}
			b.ResetTimer()
			if clients == 1 {
				for range b.N {
					one()
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						one()
					}
				})
			}
			b.StopTimer()
			cancel()
			require.NoError(b, <-stopped)
		})
	}
}
