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

// BenchmarkThreeSteps is a saga of three steps from Start to the return of Wait.
func BenchmarkThreeSteps(b *testing.B) {
	nothing := func(context.Context, *bag) error { return nil }
	d := saga.MustDefine("bag", 1, saga.Step[bag]{Name: "1", Do: nothing}, saga.Step[bag]{Name: "2", Do: nothing}, saga.Step[bag]{Name: "3", Do: nothing})
	r, err := saga.NewRunner(memsaga.New(), saga.Config{}, d)
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	stopped := make(chan error)
	go func() { stopped <- r.Run(ctx) }()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		id := strconv.Itoa(n)
		if err := saga.Start(ctx, r, d, id, bag{}); err != nil {
			b.Fatal(err)
		}
		if _, err := saga.Wait(ctx, r, d, id); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	require.NoError(b, <-stopped)
}
