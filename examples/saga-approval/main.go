// Saga-approval waits for people: a loan is paid out once somebody approves it, also when the process was started again meanwhile, is
// refused by a no, and expires when nobody answers in time. What waits is a row in the database and nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type loan struct {
	Amount   int
	Approver string
}

// decision is the event that people send.
type decision struct {
	By string
	Ok bool
}

// define says what a loan goes through, and how long it waits for a decision.
func define(out io.Writer, name string, patience time.Duration) (*saga.Definition[loan], error) {
	approval := saga.Await("approval", "decided", patience,
		func(_ context.Context, l *loan, d decision) error {
			if !d.Ok {
				return saga.Permanent(fmt.Errorf("%s says no", d.By))
			}
			l.Approver = d.By
			return nil
		})
	approval.When = func(l loan) bool { return l.Amount > 100 } // small loans need nobody
	return saga.Define(name, 1,
		saga.Step[loan]{
			Name: "set aside",
			Do:   func(context.Context, *loan) error { return nil },
			Undo: func(ctx context.Context, l *loan) error {
				a, _ := saga.Current(ctx)
				fmt.Fprintf(out, "%s: %d are free again, since %s\n", a.ID, l.Amount, a.Cause)
				return nil
			},
		},
		approval,
		saga.Step[loan]{Name: "pay out", Pivot: true, Do: func(ctx context.Context, l *loan) error {
			a, _ := saga.Current(ctx)
			fmt.Fprintf(out, "%s: %d are paid out, approved by %q\n", a.ID, l.Amount, l.Approver)
			return nil
		}},
	)
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "saga-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "loans.db")
	err = process(ctx, path, out, func(r *saga.Runner, loans, quick *saga.Definition[loan]) error {
		_, err := saga.Execute(ctx, r, loans, "loan-1", loan{Amount: 50})
		return errors.Join(err,
			saga.Start(ctx, r, loans, "loan-2", loan{Amount: 500}),
			// The answer may come before the loan gets there: it is kept.
			saga.Send(ctx, r, "loan-2", "decided", decision{By: "Ada", Ok: true}),
			want(ctx, r, loans, "loan-2", nil),
			saga.Start(ctx, r, loans, "loan-3", loan{Amount: 600}))
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "the process ends; a loan waits")
	return process(ctx, path, out, func(r *saga.Runner, loans, quick *saga.Definition[loan]) error {
		fmt.Fprintln(out, "the next process takes over")
		return errors.Join(
			saga.Send(ctx, r, "loan-3", "decided", decision{By: "Bob", Ok: false}),
			want(ctx, r, loans, "loan-3", saga.ErrCompensated),
			saga.Start(ctx, r, quick, "loan-4", loan{Amount: 700}),
			want(ctx, r, quick, "loan-4", saga.ErrCompensated))
	})
}

// process is one life of the service: it opens the database, runs sagas while it works, and hands back what it holds.
func process(ctx context.Context, path string, out io.Writer, work func(r *saga.Runner, loans, quick *saga.Definition[loan]) error) (err error) {
	db, err := sqlite.Open(path, sqlite.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	store, err := sqlsaga.New(db, sqlsaga.SQLite())
	if err != nil {
		return err
	}
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	loans, err := define(out, "loan", 48*time.Hour)
	if err != nil {
		return err
	}
	quick, err := define(out, "quick loan", 300*time.Millisecond)
	if err != nil {
		return err
	}
	runner, err := saga.NewRunner(store, saga.Config{PollMax: 50 * time.Millisecond}, loans, quick)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- runner.Run(ctx) }()
	err = work(runner, loans, quick)
	stop()
	return errors.Join(err, <-stopped)
}

// want waits until the loan has ended, and compares.
func want(ctx context.Context, r *saga.Runner, loans *saga.Definition[loan], id string, want error) error {
	_, err := saga.Wait(ctx, r, loans, id)
	if !errors.Is(err, want) {
		return fmt.Errorf("%s: %w, want %w", id, err, want)
	}
	return nil
}
