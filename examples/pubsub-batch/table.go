package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/backstay-go/backstay/pubsub"
)

// A table is where the readings go.
type table struct {
	db       *sql.DB
	out      io.Writer
	busy     bool // the first transaction fails
	commits  int
	settled  int
	complete context.CancelFunc
}

// write is the handler. A message may come again after a crash, so a row that is there already is no error.
func (t *table) write(ctx context.Context, msgs []pubsub.Message) (err error) {
	tx, err := t.db.BeginTx(ctx, nil)
	if err != nil {
		return err // of all messages: each is tried again after its backoff
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	verdicts := make(pubsub.BatchErrors, len(msgs))
	for i, m := range msgs {
		celsius, err := strconv.ParseFloat(string(m.Payload), 64)
		if err == nil && celsius < -273.15 {
			err = fmt.Errorf("%g °C is below absolute zero", celsius)
		}
		if err != nil {
			verdicts[i] = pubsub.DeadLetter(err) // of this one alone
			continue
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO readings VALUES (?, ?) ON CONFLICT (id) DO NOTHING`, m.ID, celsius); err != nil {
			return err
		}
	}
	if t.busy {
		t.busy = false
		fmt.Fprintf(t.out, "a transaction with %d readings fails, and nothing of it is kept\n", len(msgs))
		return errors.New("the database is busy")
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	t.commits++
	if t.settled += len(msgs); t.settled == readings {
		t.complete()
	}
	return verdicts
}
