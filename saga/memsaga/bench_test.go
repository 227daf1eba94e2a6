package memsaga_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

type bag struct{ Items []string }

// BenchmarkThreeSteps is a saga of three steps from its start to its result: on the caller's goroutine, and handed over.
func BenchmarkThreeSteps(b *testing.B) {
	b.Run("execute", func(b *testing.B) {
		threeSteps(b, func(ctx context.Context, r *saga.Runner, d *saga.Definition[bag], id string) error {
			_, err := saga.Execute(ctx, r, d, id, bag{})
			return err
		})
	})
	b.Run("start and wait", func(b *testing.B) {
		threeSteps(b, func(ctx context.Context, r *saga.Runner, d *saga.Definition[bag], id string) error {
			if err := saga.Start(ctx, r, d, id, bag{}); err != nil {
				return err
			}
			_, err := saga.Wait(ctx, r, d, id)
			return err
		})
	})
}

func threeSteps(b *testing.B, one func(ctx context.Context, r *saga.Runner, d *saga.Definition[bag], id string) error) {
	nothing := func(context.Context, *bag) error { return nil }
	d := saga.MustDefine("bag", 1, saga.Step[bag]{Name: "1", Do: nothing}, saga.Step[bag]{Name: "2", Do: nothing}, saga.Step[bag]{Name: "3", Do: nothing})
	store := memsaga.New()
	r, err := saga.NewRunner(store, saga.Config{}, d)
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	stopped := make(chan error)
	go func() { stopped <- r.Run(ctx) }()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n++; n%1000 == 0 {
			if _, err := store.Purge(ctx, 0, n); err != nil { // as a long-lived process does
				b.Fatal(err)
			}
		}
		if err := one(ctx, r, d, strconv.Itoa(n)); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	require.NoError(b, <-stopped)
}
