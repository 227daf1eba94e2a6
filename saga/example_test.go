package saga_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

type trip struct {
	Traveller string
	Booking   string
}

func says(format string) func(context.Context, *trip) error {
	return func(_ context.Context, t *trip) error {
		fmt.Printf(format+"\n", t.Traveller)
		return nil
	}
}

// carryOut runs one instance to its end. A service calls Run once, in a goroutine of its own.
func carryOut(d *saga.Definition[trip], id string, t trip, parts ...saga.Part) (saga.Result[trip], error) {
	ctx, cancel := context.WithCancel(context.Background())
	runner, err := saga.NewRunner(memsaga.New(), saga.Config{}, append(parts, d)...)
	if err != nil {
		cancel()
		return saga.Result[trip]{}, err
	}
	stopped := make(chan error)
	go func() { stopped <- runner.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-stopped; err != nil {
			fmt.Println(err)
		}
	}()
	if err := saga.Start(ctx, runner, d, id, t); err != nil {
		return saga.Result[trip]{}, err
	}
	return saga.Wait(ctx, runner, d, id)
}

func Example() {
	book, err := saga.Define("trip", 1,
		saga.Step[trip]{Name: "flight", Do: says("book a flight for %s"), Undo: says("cancel the flight of %s")},
		saga.Step[trip]{Name: "hotel", Do: func(ctx context.Context, t *trip) error {
			t.Booking = "room 12"
			return nil
		}, Undo: says("cancel the room of %s")},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	res, err := carryOut(book, "trip-1", trip{Traveller: "Ada"})
	fmt.Println(res.Status, res.State.Booking, err)
	// Output:
	// book a flight for Ada
	// completed room 12 <nil>
}

func ExampleWait_compensated() {
	book := saga.MustDefine("trip", 1,
		saga.Step[trip]{Name: "flight", Do: says("book a flight for %s"), Undo: says("cancel the flight of %s")},
		saga.Step[trip]{Name: "hotel", Do: func(context.Context, *trip) error {
			return saga.Permanent(errors.New("no room left"))
		}},
	)
	_, err := carryOut(book, "trip-2", trip{Traveller: "Ada"})
	fmt.Println(errors.Is(err, saga.ErrCompensated))
	fmt.Println(err)
	// Output:
	// book a flight for Ada
	// cancel the flight of Ada
	// true
	// saga "trip": instance "trip-2" compensated at step "flight": no room left
}

func ExampleIdempotencyKey() {
	pay := saga.MustDefine("payment", 1, saga.Step[trip]{Name: "charge", Do: func(ctx context.Context, _ *trip) error {
		fmt.Println(saga.IdempotencyKey(ctx))
		return nil
	}})
	_, err := carryOut(pay, "trip-3", trip{})
	fmt.Println(err)
	// Output:
	// trip-3/charge/do
	// <nil>
}

func ExampleOnTransition() {
	refused := errors.New("card refused")
	pay := saga.MustDefine("payment", 1,
		saga.Step[trip]{Name: "reserve", Do: says("reserve for %s"), Undo: says("release for %s")},
		saga.Step[trip]{Name: "charge", Do: func(context.Context, *trip) error { return saga.Permanent(refused) }},
	)
	_, err := carryOut(pay, "trip-4", trip{Traveller: "Ada"}, saga.OnTransition(func(in saga.Instance, e saga.Event) {
		fmt.Printf("%s %s: %s, now %s\n", e.Direction, e.Step, e.Outcome, in.Status)
	}))
	fmt.Println(errors.Is(err, saga.ErrCompensated))
	// Output:
	// reserve for Ada
	// do reserve: done, now running
	// do charge: failed, now compensating
	// release for Ada
	// undo reserve: done, now compensated
	// true
}
