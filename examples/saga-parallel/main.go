// Saga-parallel books the parts of a trip at the same time. Each booking returns a reference, which is merged into the trip; when one cannot
// be had, those that were made are cancelled by their references.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type trip struct {
	To       string
	Bookings []string
}

// book is a branch: it sees the trip as it was before the group, and returns what Merge writes into it and Undo gets.
func book(out io.Writer, what string) saga.Branch[trip, string] {
	return saga.Branch[trip, string]{
		Name: what,
		Do: func(ctx context.Context, t trip) (string, error) {
			if what == "car" && t.To == "Venice" {
				<-time.After(50 * time.Millisecond)
				return "", saga.Permanent(errors.New("there are no cars in Venice"))
			}
			select {
			case <-time.After(100 * time.Millisecond): // the work
				return what + " to " + t.To, nil
			case <-ctx.Done(): // another branch has failed for good
				return "", ctx.Err()
			}
		},
		Merge: func(t *trip, reference string) { t.Bookings = append(t.Bookings, reference) },
		// An attempt that was cut short may have booked all the same: then there is no reference, and the branch is undone too.
		Undo: func(_ context.Context, _ trip, reference string) error {
			if reference == "" {
				reference = "the " + what + ", if it was booked"
			}
			fmt.Fprintf(out, "  cancel %s\n", reference)
			return nil
		},
	}
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	trips, err := saga.Define("trip", 1,
		saga.Parallel("bookings", book(out, "flight"), book(out, "hotel"), book(out, "car")),
		saga.Step[trip]{Name: "pay", Pivot: true, Do: func(_ context.Context, t *trip) error {
			fmt.Fprintf(out, "  pay for %s\n", strings.Join(t.Bookings, ", "))
			return nil
		}},
	)
	if err != nil {
		return err
	}
	runner, err := saga.NewRunner(memsaga.New(), saga.Config{}, trips) // sqlsaga.New keeps them in a database
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- runner.Run(running) }()
	defer func() { stop(); err = errors.Join(err, <-stopped) }()

	fmt.Fprintln(out, "three bookings of 100 ms each")
	start := time.Now()
	rome, err := saga.Execute(ctx, runner, trips, "trip-1", trip{To: "Rome"})
	took := time.Since(start)
	fmt.Fprintf(out, "  = %s after %d ms\n", rome.Status, took.Milliseconds())
	if err != nil || len(rome.State.Bookings) != 3 {
		return fmt.Errorf("to Rome: %v, %w", rome.State, err)
	}

	fmt.Fprintln(out, "one of three cannot be had")
	venice, err := saga.Execute(ctx, runner, trips, "trip-2", trip{To: "Venice"})
	fmt.Fprintf(out, "  = %s: %v\n", venice.Status, err)
	if !errors.Is(err, saga.ErrCompensated) {
		return fmt.Errorf("to Venice: %w", err)
	}
	return nil
}
