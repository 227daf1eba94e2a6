package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/cache"
)

// A shelf is the source: a table of prices in pence. It counts how often it is asked.
type shelf struct {
	db    *sql.DB
	asked atomic.Int64
}

func openShelf(ctx context.Context, path string) (*shelf, error) {
	db, err := sqlite.Open(path, sqlite.Config{})
	if err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, `CREATE TABLE products (sku TEXT PRIMARY KEY, pence INTEGER NOT NULL);
		INSERT INTO products VALUES ('tea', 250), ('mug', 900)`)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &shelf{db: db}, nil
}

// price is the loader. That there is no such product is an answer too, and said by an error that is cache.ErrNotFound.
func (s *shelf) price(ctx context.Context, sku string) (pence int, err error) {
	s.asked.Add(1)
	err = s.db.QueryRowContext(ctx, `SELECT pence FROM products WHERE sku = ?`, sku).Scan(&pence)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("product %q: %w", sku, cache.ErrNotFound)
	}
	return pence, err
}

func (s *shelf) setPrice(ctx context.Context, sku string, pence int) error {
	_, err := s.db.ExecContext(ctx, `UPDATE products SET pence = ? WHERE sku = ?`, pence, sku)
	return err
}

// breakDown makes every query fail.
func (s *shelf) breakDown(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, `ALTER TABLE products RENAME TO lost`)
	return err
}
