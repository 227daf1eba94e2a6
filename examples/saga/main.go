// Saga carries out orders in steps that each change another system: one goes through, one is refused and undone, and one gets stuck on the
// way back, where a person mends the cause and has it finished.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
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

// order is the state: stored after each step, and handed to the next one.
type order struct {
	Item, Receipt string
}

// shop stands for the systems that the steps call.
type shop struct {
	out           io.Writer
	warehouseDown atomic.Bool
}

func (s *shop) say(ctx context.Context, text string) error {
	a, _ := saga.Current(ctx)
	fmt.Fprintf(s.out, "  %-14s %s (key %s)\n", a.Step+":", text, saga.IdempotencyKey(ctx)) // the key goes along with every call
	return nil
}

// define names the steps. What can be undone comes before the pivot, what only has to be tried long enough after it.
func (s *shop) define() (*saga.Definition[order], error) {
	return saga.Define("order", 1,
		saga.Step[order]{
			Name: "reserve",
			Do:   func(ctx context.Context, o *order) error { return s.say(ctx, "take from the shelf") },
			Undo: func(ctx context.Context, o *order) error {
				if s.warehouseDown.Load() {
					return errors.New("the warehouse is closed")
				}
				return s.say(ctx, "put back on the shelf")
			},
			UndoRetry: saga.Retry{MaxAttempts: 2, Initial: 10 * time.Millisecond},
		},
		saga.Step[order]{
			Name: "charge",
			Do: func(ctx context.Context, o *order) error {
				if o.Item != "tea" {
					return saga.Permanent(errors.New("the card is refused")) // to try again is no use
				}
				o.Receipt = "receipt 1"
				return s.say(ctx, "take the money")
			},
			Undo:  func(ctx context.Context, o *order) error { return s.say(ctx, "give the money back") },
			Pivot: true,
		},
		saga.Step[order]{
			Name: "ship",
			Do:   func(ctx context.Context, o *order) error { return s.say(ctx, "send the parcel with "+o.Receipt) },
		},
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
	db, err := sqlite.Open(filepath.Join(dir, "orders.db"), sqlite.Config{})
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
	s := &shop{out: out}
	orders, err := s.define()
	if err != nil {
		return err
	}
	runner, err := saga.NewRunner(store, saga.Config{}, orders)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- runner.Run(running) }()
	defer func() { stop(); err = errors.Join(err, <-stopped) }()
	return s.tell(ctx, runner, orders)
}

func (s *shop) tell(ctx context.Context, runner *saga.Runner, orders *saga.Definition[order]) error {
	execute := func(id, item string, want error) error {
		fmt.Fprintf(s.out, "%s, an order of %s\n", id, item)
		result, err := saga.Execute(ctx, runner, orders, id, order{Item: item})
		fmt.Fprintf(s.out, "  = %s\n", result.Status)
		if !errors.Is(err, want) {
			return fmt.Errorf("%s: %w, want %w", id, err, want)
		}
		return nil
	}
	if err := errors.Join(execute("order-1", "tea", nil), execute("order-2", "yacht", saga.ErrCompensated)); err != nil {
		return err
	}
	s.warehouseDown.Store(true)
	if err := execute("order-3", "yacht", saga.ErrStuck); err != nil {
		return err
	}
	stuck, err := runner.List(ctx, saga.Filter{Statuses: []saga.Status{saga.Stuck}}) // or: backstay saga list -status stuck
	if err != nil || len(stuck) != 1 {
		return fmt.Errorf("%d orders are stuck, %w", len(stuck), err)
	}
	fmt.Fprintf(s.out, "a person looks at %s and opens the warehouse\n", stuck[0].ID)
	s.warehouseDown.Store(false)
	if err := runner.Retry(ctx, stuck[0].ID); err != nil { // or: backstay saga retry order-3
		return err
	}
	result, err := saga.Wait(ctx, runner, orders, "order-3")
	fmt.Fprintf(s.out, "  = %s, and its history has %d entries\n", result.Status, len(result.History))
	if !errors.Is(err, saga.ErrCompensated) {
		return fmt.Errorf("order-3: %w", err)
	}
	return nil
}
