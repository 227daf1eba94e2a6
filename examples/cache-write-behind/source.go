package main

import (
	"context"
	"database/sql"
	"errors"

	"github.com/backstay-go/backstay/cache"
)

// A table is the source. It counts how often it is written.
type table struct {
	db      *sql.DB
	batches int // by one goroutine at a time, the cache's
}

func (t *table) views(ctx context.Context, sku string) (n int, err error) {
	err = t.db.QueryRowContext(ctx, `SELECT n FROM views WHERE sku = ?`, sku).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil // nobody has seen it yet
	}
	return n, err
}

// write may be called again with the same batch, so it says what the sums are and not what to add.
func (t *table) write(ctx context.Context, batch []cache.Write[string, int]) (err error) {
	tx, err := t.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	for _, w := range batch {
		_, err = tx.ExecContext(ctx, `INSERT INTO views VALUES (?, ?) ON CONFLICT (sku) DO UPDATE SET n = excluded.n`, w.Key, w.Value)
		if err != nil {
			return err
		}
	}
	t.batches++
	return tx.Commit()
}
