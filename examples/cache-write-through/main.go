// Cache-write-through writes prices to SQLite first and keeps them then, so that reads find them without a query.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/cache"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "cache-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := sqlite.Open(filepath.Join(dir, "products.db"), sqlite.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err = db.ExecContext(ctx, `CREATE TABLE products (sku TEXT PRIMARY KEY, pence INTEGER NOT NULL CHECK (pence > 0))`); err != nil {
		return err
	}
	table := &table{db: db}
	prices := cache.NewWriteThrough(table.price, table.setPrice, cache.Config{Name: "prices", TTL: time.Minute})
	defer func() { err = errors.Join(err, prices.Close()) }()
	s := &story{out: out, table: table, prices: prices}

	s.set(ctx, 250, true)
	s.ask(ctx, "read after the write", "£2.50", 0)
	s.set(ctx, -1, false)
	s.ask(ctx, "read after a write that failed", "£2.50", 1)

	if err := s.setAtOnce(ctx, 20); err != nil {
		return err
	}
	truth, err := table.price(ctx, "tea")
	if err != nil {
		return err
	}
	cached, err := prices.Get(ctx, "tea")
	s.tell("20 writes at once: cache and table", shown(cached, err), shown(truth, nil))

	if _, err := db.ExecContext(ctx, `ALTER TABLE products RENAME TO lost`); err != nil {
		return err
	}
	s.set(ctx, 300, false)
	s.ask(ctx, "read: the table may have it or not", "failure", 1)
	return s.wrong
}

// A table is the source. It counts the queries.
type table struct {
	db      *sql.DB
	queries atomic.Int64
}

func (t *table) price(ctx context.Context, sku string) (pence int, err error) {
	t.queries.Add(1)
	err = t.db.QueryRowContext(ctx, `SELECT pence FROM products WHERE sku = ?`, sku).Scan(&pence)
	return pence, err
}

// setPrice is the writer. It returns nil only when the price is committed.
func (t *table) setPrice(ctx context.Context, sku string, pence int) error {
	_, err := t.db.ExecContext(ctx, `INSERT INTO products VALUES (?, ?)
		ON CONFLICT (sku) DO UPDATE SET pence = excluded.pence`, sku, pence)
	return err
}

// A story prints a line for each thing that is done and notes what is not as it should be.
type story struct {
	out    io.Writer
	table  *table
	prices *cache.WriteThrough[string, int]
	wrong  error
}

func (s *story) set(ctx context.Context, pence int, ok bool) {
	answer, want := "written", "written"
	if !ok {
		want = "refused"
	}
	if s.prices.Set(ctx, "tea", pence) != nil {
		answer = "refused"
	}
	s.tell(fmt.Sprintf("write %d pence", pence), answer, want)
}

// setAtOnce writes n prices of one product at the same time: only the table knows which one is the last.
func (s *story) setAtOnce(ctx context.Context, n int) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = s.prices.Set(ctx, "tea", 260+i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *story) ask(ctx context.Context, what, want string, wantQueries int64) {
	before := s.table.queries.Load()
	pence, err := s.prices.Get(ctx, "tea")
	n := s.table.queries.Load() - before
	s.tell(what, fmt.Sprintf("%-8s queries: %d", shown(pence, err), n), fmt.Sprintf("%-8s queries: %d", want, wantQueries))
}

func (s *story) tell(what, answer, want string) {
	fmt.Fprintf(s.out, "%-36s %s\n", what, answer)
	if answer != want {
		s.wrong = errors.Join(s.wrong, fmt.Errorf("%s: %s, want %s", what, answer, want))
	}
}

func shown(pence int, err error) string {
	if err != nil {
		return "failure"
	}
	return fmt.Sprintf("£%d.%02d", pence/100, pence%100)
}
