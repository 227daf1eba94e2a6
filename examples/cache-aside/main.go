// Cache-aside keeps what the application itself has read from SQLite: it looks into the cache, and on a miss takes a lease,
// reads, and fills. A write in between voids the lease, so that no old value is kept.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
		INSERT INTO products VALUES ('tea', 250), ('mug', 900)`); err != nil {
		return err
	}
	prices := cache.NewAside[string, int](cache.Config{Name: "prices", TTL: time.Minute})
	defer func() { err = errors.Join(err, prices.Close()) }()
	s := &shop{out: out, db: db, prices: prices}

	s.ask(ctx, "nothing is cached yet", "£2.50", 1)
	s.ask(ctx, "again, from the cache", "£2.50", 0)
	if err := s.setPrice(ctx, "tea", 275); err != nil {
		return err
	}
	s.ask(ctx, "after a change of price", "£2.75", 1)
	if err := s.race(ctx); err != nil {
		return err
	}
	s.ask(ctx, "after a reader who came too late", "£3.00", 1)

	if _, err := db.ExecContext(ctx, `ALTER TABLE products RENAME TO lost`); err != nil {
		return err
	}
	s.ask(ctx, "the table is gone; in the cache", "£3.00", 0)
	if err := prices.Delete(ctx, "tea"); err != nil {
		return err
	}
	s.ask(ctx, "not in the cache", "failure", 1)
	s.ask(ctx, "a failure is not kept", "failure", 1)
	return s.wrong
}

// A shop is the application.
type shop struct {
	out     io.Writer
	db      *sql.DB
	prices  *cache.Aside[string, int]
	queries int
	wrong   error
}

// price is the pattern: look, and who finds nothing takes the lease, reads, and fills.
func (s *shop) price(ctx context.Context, sku string) (int, error) {
	if pence, ok, err := s.prices.Get(ctx, sku); ok || err != nil {
		return pence, err
	}
	grant, err := s.prices.Begin(ctx, sku) // waits while somebody else reads the same
	if err != nil {
		return 0, err
	}
	if grant.Found {
		return grant.Entry.Value, nil
	}
	pence, err := s.read(ctx, sku)
	if err != nil {
		return 0, errors.Join(err, grant.Lease.Release(ctx)) // the next one need not wait
	}
	_, err = grant.Lease.Fill(ctx, cache.Entry[int]{Value: pence})
	return pence, err
}

func (s *shop) read(ctx context.Context, sku string) (pence int, err error) {
	s.queries++
	err = s.db.QueryRowContext(ctx, `SELECT pence FROM products WHERE sku = ?`, sku).Scan(&pence)
	return pence, err
}

// setPrice commits first and deletes then: the other way round, a reader in between would keep the old price.
func (s *shop) setPrice(ctx context.Context, sku string, pence int) error {
	if _, err := s.db.ExecContext(ctx, `UPDATE products SET pence = ? WHERE sku = ?`, pence, sku); err != nil {
		return err
	}
	return s.prices.Delete(ctx, sku)
}

// race lets a reader read, then a writer write, and the reader fill only then.
func (s *shop) race(ctx context.Context) error {
	if err := s.prices.Delete(ctx, "tea"); err != nil {
		return err
	}
	grant, err := s.prices.Begin(ctx, "tea")
	if err != nil {
		return err
	}
	old, err := s.read(ctx, "tea")
	if err != nil {
		return errors.Join(err, grant.Lease.Release(ctx))
	}
	if err := s.setPrice(ctx, "tea", 300); err != nil {
		return err
	}
	kept, err := grant.Lease.Fill(ctx, cache.Entry[int]{Value: old})
	if kept {
		err = errors.Join(err, errors.New("the price from before the write was kept"))
	}
	return err
}

// ask tells what the price of tea is, what that took, and notes what is not as it should be.
func (s *shop) ask(ctx context.Context, what, want string, wantQueries int) {
	before := s.queries
	answer := "failure"
	if pence, err := s.price(ctx, "tea"); err == nil {
		answer = fmt.Sprintf("£%d.%02d", pence/100, pence%100)
	}
	queries := s.queries - before
	fmt.Fprintf(s.out, "%-34s %-8s queries: %d\n", what, answer, queries)
	if answer != want || queries != wantQueries {
		s.wrong = errors.Join(s.wrong, fmt.Errorf("%s: %s and %d queries, want %s and %d", what, answer, queries, want, wantQueries))
	}
}
