package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

type purchase struct{ Article string }

var buy = saga.MustDefine("buy", 1, saga.Step[purchase]{
	Name: "pack",
	Do: func(_ context.Context, p *purchase) error {
		fmt.Println("packing", p.Article)
		return nil
	},
})

// withSagas opens a store in a new folder for the time of fn.
func withSagas(fn func(ctx context.Context, db *sql.DB, store *sqlsaga.Store) error) (err error) {
	dir, err := os.MkdirTemp("", "saga")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := sqlite.Open(filepath.Join(dir, "shop.db"), sqlite.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	store, err := sqlsaga.New(db, sqlsaga.SQLite())
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	return fn(ctx, db, store)
}

// A saga survives the process that started it: here the first runner never runs, and a second one does the work.
func Example_saga() {
	err := withSagas(func(ctx context.Context, _ *sql.DB, store *sqlsaga.Store) error {
		first, err := saga.NewRunner(store, saga.Config{}, buy)
		if err != nil {
			return err
		}
		if err := saga.Start(ctx, first, buy, "order-1", purchase{"a lamp"}); err != nil {
			return err
		}
		second, err := saga.NewRunner(store, saga.Config{}, buy)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		stopped := make(chan error)
		go func() { stopped <- second.Run(ctx) }()
		res, err := saga.Wait(ctx, second, buy, "order-1")
		fmt.Println(res.Status, err)
		cancel()
		return <-stopped
	})
	fmt.Println(err)
	// Output:
	// packing a lamp
	// completed <nil>
	// <nil>
}

// The order and the saga that fulfils it are committed together, or not at all.
func Example_sagaInTransaction() {
	err := withSagas(func(ctx context.Context, db *sql.DB, store *sqlsaga.Store) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if err := sqlsaga.StartTx(ctx, store, tx, buy, "order-2", purchase{"a chair"}); err != nil {
			return err
		}
		if err := tx.Rollback(); err != nil {
			return err
		}
		ins, err := store.List(ctx, saga.Filter{})
		fmt.Println(len(ins), "sagas")
		return err
	})
	fmt.Println(err)
	// Output:
	// 0 sagas
	// <nil>
}

// Ended instances are deleted when nobody will ask for them again.
func Example_sagaPurge() {
	err := withSagas(func(ctx context.Context, _ *sql.DB, store *sqlsaga.Store) error {
		n, err := store.Purge(ctx, 30*24*time.Hour, 1000)
		fmt.Println(n, "deleted")
		table, _, _ := strings.Cut(store.Schema()[0], " (")
		fmt.Println(table)
		return err
	})
	fmt.Println(err)
	// Output:
	// 0 deleted
	// CREATE TABLE IF NOT EXISTS backstay_sagas
	// <nil>
}

// What a step with InTx writes through the store's transaction happens exactly once, whatever is killed when.
func Example_sagaStepInTransaction() {
	err := withSagas(func(ctx context.Context, db *sql.DB, store *sqlsaga.Store) error {
		if _, err := db.ExecContext(ctx, `CREATE TABLE sales (item TEXT)`); err != nil {
			return err
		}
		sell := saga.MustDefine("sale", 1, saga.Step[purchase]{Name: "book", InTx: true, Do: func(ctx context.Context, p *purchase) error {
			_, err := sqlsaga.Tx(ctx).ExecContext(ctx, `INSERT INTO sales VALUES (?)`, p.Article)
			return err
		}})
		runner, err := saga.NewRunner(store, saga.Config{}, sell)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		stopped := make(chan error)
		go func() { stopped <- runner.Run(ctx) }()
		_, err = saga.Execute(ctx, runner, sell, "sale-1", purchase{"a lamp"})
		var n int
		err = errors.Join(err, db.QueryRowContext(ctx, `SELECT count(*) FROM sales`).Scan(&n))
		fmt.Println(n, err)
		cancel()
		return <-stopped
	})
	fmt.Println(err)
	// Output:
	// 1 <nil>
	// <nil>
}
