package main

import (
	"context"
	"database/sql"
	"time"

	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

// A dialect is all that differs between the databases: the text of the services' SQL is the same for both.
type dialect struct {
	outbox func() sqloutbox.Dialect
	sagas  func() sqlsaga.Dialect
	// elements is the JSON array in $1 as a table of key (from 0) and value; members is the JSON object in $1.
	elements, members string
	// reading begins a transaction that sees one moment.
	reading sql.TxOptions
	// shared: transactions run beside each other and lock what they touch; otherwise each takes the write lock when it begins.
	shared bool
}

var onSQLite = dialect{
	outbox: sqloutbox.SQLite, sagas: sqlsaga.SQLite,
	elements: `json_each($1)`, members: `json_each($1)`,
	reading: sql.TxOptions{ReadOnly: true},
}

var onPostgreSQL = dialect{
	outbox: sqloutbox.PostgreSQL, sagas: sqlsaga.PostgreSQL,
	elements: `(SELECT ordinality - 1 AS key, value FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY) AS elements`,
	members:  `jsonb_each_text($1::jsonb)`,
	reading:  sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead},
	shared:   true,
}

// lock makes the transactions about one thing take turns: first of all locks, and before anything is read.
func (d dialect) lock(ctx context.Context, tx *sql.Tx, key string) error {
	if !d.shared {
		return nil
	}
	_, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, key)
	return err
}

// lockProducts takes the rows of the goods, in one sequence for all orders: two orders that share two products would otherwise
// wait for each other.
func (d dialect) lockProducts(ctx context.Context, tx *sql.Tx, goods goods) error {
	if !d.shared {
		return nil
	}
	_, err := tx.ExecContext(ctx, goods.with(`SELECT 1 FROM products WHERE sku IN (SELECT sku FROM goods) ORDER BY sku FOR UPDATE`), goods.json)
	return err
}

// lockReserved is lockProducts for what an order holds.
func (d dialect) lockReserved(ctx context.Context, tx *sql.Tx, orderID string) error {
	if !d.shared {
		return nil
	}
	_, err := tx.ExecContext(ctx, `SELECT 1 FROM products
		WHERE sku IN (SELECT sku FROM reservation_lines WHERE order_id = $1) ORDER BY sku FOR UPDATE`, orderID)
	return err
}

// beaten repeats a transaction that another one beat.
var beaten = retry.New(retry.Config{Name: "transaction", MaxAttempts: 10, InitialInterval: 5 * time.Millisecond, MaxInterval: 200 * time.Millisecond},
	retry.WithRetryable(isBeaten))

// again runs a transaction until it is not beaten by another.
func (d dialect) again(ctx context.Context, transaction func(context.Context) error) error {
	if !d.shared {
		return transaction(ctx)
	}
	return beaten.Do(ctx, transaction)
}
