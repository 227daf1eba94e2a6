package memsaga_test

import (
	"context"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

var greet = saga.MustDefine("greet", 1, saga.Step[bag]{Name: "greet", Do: func(_ context.Context, b *bag) error {
	b.Items = append(b.Items, "hello")
	return nil
}})

func ExampleNew() {
	ctx, cancel := context.WithCancel(context.Background())
	runner, err := saga.NewRunner(memsaga.New(), saga.Config{}, greet)
	if err != nil {
		fmt.Println(err)
	}
	stopped := make(chan error)
	go func() { stopped <- runner.Run(ctx) }()
	fmt.Println(saga.Start(ctx, runner, greet, "1", bag{}))
	res, err := saga.Wait(ctx, runner, greet, "1")
	fmt.Println(res.State.Items, err)
	cancel()
	fmt.Println(<-stopped)
	// Output:
	// <nil>
	// [hello] <nil>
	// <nil>
}

func ExampleStore_List() {
	ctx, store := context.Background(), memsaga.New()
	runner, err := saga.NewRunner(store, saga.Config{}, greet)
	fmt.Println(err, saga.Start(ctx, runner, greet, "1", bag{}))
	ins, err := store.List(ctx, saga.Filter{Statuses: []saga.Status{saga.Running}})
	fmt.Println(ins[0].ID, ins[0].Name, ins[0].Step, err)
	// Output:
	// <nil> <nil>
	// 1 greet greet <nil>
}

func ExampleStore_Purge() {
	ctx, store := context.Background(), memsaga.New()
	runner, err := saga.NewRunner(store, saga.Config{}, greet)
	fmt.Println(err, saga.Start(ctx, runner, greet, "1", bag{}))
	n, err := store.Purge(ctx, time.Hour, 1000)
	fmt.Println(n, "deleted, since it has not ended:", err)
	// Output:
	// <nil> <nil>
	// 0 deleted, since it has not ended: <nil>
}
