package saga_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

type loan struct {
	Amount   int
	Approver string
	Checks   []string
}

func check(name string) saga.Branch[loan, string] {
	return saga.Branch[loan, string]{
		Name:  name,
		Do:    func(context.Context, loan) (string, error) { return name + ": good", nil },
		Merge: func(l *loan, result string) { l.Checks = append(l.Checks, result) },
	}
}

// The branches run at once; their results are merged in the order in which they are named.
func ExampleParallel() {
	d := saga.MustDefine("loan", 1, saga.Parallel("checks", check("identity"), check("income"), check("register")))
	lend(d, func(context.Context, *saga.Runner) error { return nil })
	// Output:
	// [identity: good income: good register: good]  <nil>
}

// The instance holds nothing while it waits for the event, which may come from any process.
func ExampleAwait() {
	d := saga.MustDefine("loan", 1, saga.Await("approval", "approved", 48*time.Hour, func(_ context.Context, l *loan, by string) error {
		l.Approver = by
		return nil
	}))
	lend(d, func(ctx context.Context, r *saga.Runner) error { return saga.Send(ctx, r, "loan-1", "approved", "Ada") })
	// Output:
	// [] Ada <nil>
}

// A small loan needs no approval, a large one is refused here, and what the child did is undone with the rest.
func ExampleChild() {
	transfer := saga.MustDefine("transfer", 1, saga.Step[loan]{
		Name: "send",
		Do:   func(_ context.Context, l *loan) error { fmt.Println("send", l.Amount); return nil },
		Undo: func(ctx context.Context, l *loan) error {
			a, _ := saga.Current(ctx)
			fmt.Println("call back", l.Amount, "since", a.Cause)
			return nil
		},
	})
	d := saga.MustDefine("loan", 1,
		saga.Child("pay out", transfer, func(l loan) loan { return l }, nil),
		saga.Step[loan]{Name: "book", When: func(l loan) bool { return l.Amount > 100 }, Do: func(context.Context, *loan) error {
			return saga.Permanent(errors.New("no such account"))
		}},
	)
	lend(d, func(context.Context, *saga.Runner) error { return nil })
	// Output:
	// send 500
	// call back 500 since the parent turned back: no such account
	// []  saga "loan": instance "loan-1" compensated at step "pay out": no such account
}

// lend carries one loan out, and says how it ended.
func lend(d *saga.Definition[loan], meanwhile func(ctx context.Context, r *saga.Runner) error) {
	ctx, cancel := context.WithCancel(context.Background())
	r, err := saga.NewRunner(memsaga.New(), saga.Config{}, d)
	if err != nil {
		fmt.Println(err)
	}
	stopped := make(chan error)
	go func() { stopped <- r.Run(ctx) }()
	err = saga.Start(ctx, r, d, "loan-1", loan{Amount: 500})
	if err == nil {
		err = meanwhile(ctx, r)
	}
	if err != nil {
		fmt.Println(err)
	}
	res, err := saga.Wait(ctx, r, d, "loan-1")
	fmt.Println(res.State.Checks, res.State.Approver, err)
	cancel()
	if err := <-stopped; err != nil {
		fmt.Println(err)
	}
}
