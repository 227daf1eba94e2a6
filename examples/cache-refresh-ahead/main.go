// Cache-refresh-ahead keeps a price that is read all the time: it is loaded again in the background before it gets too old,
// so that no reader waits for SQLite, and the old one is served, marked as stale, while SQLite fails.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	if _, err = db.ExecContext(ctx, `CREATE TABLE products (sku TEXT PRIMARY KEY, pence INTEGER NOT NULL);
		INSERT INTO products VALUES ('tea', 250)`); err != nil {
		return err
	}
	table := &table{db: db}
	prices := cache.New(table.price, cache.Config{
		Name: "prices", TTL: 500 * time.Millisecond, RefreshAhead: 350 * time.Millisecond, StaleIfError: time.Minute,
	})
	defer func() { err = errors.Join(err, prices.Close()) }()
	s := &story{out: out, table: table, prices: prices}
	return errors.Join(s.refresh(ctx), s.outage(ctx), s.recovery(ctx))
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

type story struct {
	out    io.Writer
	table  *table
	prices *cache.Cache[string, int]
}

// refresh: the price changes, and nobody tells the cache. Readers see the new one without having waited for it.
func (s *story) refresh(ctx context.Context) error {
	if _, err := s.prices.Get(ctx, "tea"); err != nil {
		return err
	}
	if _, err := s.table.db.ExecContext(ctx, `UPDATE products SET pence = 275`); err != nil {
		return err
	}
	reads, err := s.readUntil(ctx, func(r cache.Result[int]) bool { return r.Value == 275 })
	if err != nil {
		return err
	}
	stats := s.prices.Stats()
	fmt.Fprintf(s.out, "the new price after %d reads: %d waited, %d refreshed in the background, %d queries\n",
		reads+1, stats.Misses, stats.Refreshes, s.table.queries.Load())
	if stats.Misses != 1 || stats.Refreshes == 0 {
		return fmt.Errorf("%d reads waited and %d refreshed, want 1, the first, and at least 1", stats.Misses, stats.Refreshes)
	}
	return nil
}

// outage: the table is gone for longer than the TTL. The old price is served, marked as stale, and the table is left alone.
func (s *story) outage(ctx context.Context) error {
	if _, err := s.table.db.ExecContext(ctx, `ALTER TABLE products RENAME TO lost`); err != nil {
		return err
	}
	before := s.table.queries.Load()
	if _, err := s.readUntil(ctx, func(r cache.Result[int]) bool { return r.Stale && s.prices.Stats().StaleServed >= 20 }); err != nil {
		return err
	}
	stale, queries := s.prices.Stats().StaleServed, s.table.queries.Load()-before
	fmt.Fprintf(s.out, "without the table: %d stale answers, no error, %d queries\n", stale, queries)
	if queries >= int64(stale) {
		return fmt.Errorf("%d queries for %d stale answers: the failing table was not left alone", queries, stale)
	}
	return nil
}

func (s *story) recovery(ctx context.Context) error {
	if _, err := s.table.db.ExecContext(ctx, `ALTER TABLE lost RENAME TO products; UPDATE products SET pence = 300`); err != nil {
		return err
	}
	_, err := s.readUntil(ctx, func(r cache.Result[int]) bool { return r.Value == 300 && !r.Stale })
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, "the table is back: the new price is there")
	return nil
}

// readUntil reads a hundred times a second, and says how often it did. It gives up after five seconds.
func (s *story) readUntil(ctx context.Context, done func(cache.Result[int]) bool) (reads int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := s.prices.Lookup(ctx, "tea")
		reads++
		if err != nil || done(r) {
			return reads, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return reads, fmt.Errorf("%d reads, the last one of %d pence, stale: %t: %w", reads, r.Value, r.Stale, ctx.Err())
		}
	}
}
