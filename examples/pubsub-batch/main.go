// Pubsub-batch writes readings into a SQLite table, up to a hundred in one transaction. A failed transaction is tried
// again as a whole; a reading that can never be written becomes a dead letter alone.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/pubsub"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const readings = 1000

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "pubsub-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := sqlite.Open(filepath.Join(dir, "readings.db"), sqlite.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err = db.ExecContext(ctx, `CREATE TABLE readings (id TEXT PRIMARY KEY, celsius REAL NOT NULL)`); err != nil {
		return err
	}
	server, err := natsembed.Start(natsembed.Config{Dir: filepath.Join(dir, "nats")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	conn, err := server.Connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	driver, err := natspubsub.New(ctx, conn, natspubsub.Config{})
	if err != nil {
		return err
	}
	bus := pubsub.New(driver)
	defer func() { err = errors.Join(err, bus.Close()) }()
	return store(ctx, bus, &table{db: db, out: out, busy: true})
}

// store publishes the readings and has them written.
func store(ctx context.Context, bus *pubsub.Bus, t *table) error {
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "readings", Group: "table", Concurrency: 1, BackoffInitial: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	var msgs []pubsub.Message
	for i := range readings {
		msgs = append(msgs, pubsub.Message{ID: fmt.Sprint("reading-", i), Topic: "readings", Payload: fmt.Append(nil, 20+i%5)})
	}
	msgs[333].Payload = []byte("-300")
	if err := bus.Publish(ctx, msgs...); err != nil {
		return err
	}
	written, stop := context.WithCancel(ctx)
	defer stop()
	t.complete = stop
	if err := c.RunBatch(written, t.write); err != nil { // it drains: the last transaction is finished and settled
		return err
	}
	return t.report(ctx, c.Stats())
}

// report compares the table with what was published.
func (t *table) report(ctx context.Context, stats pubsub.Stats) error {
	var rows int
	if err := t.db.QueryRowContext(ctx, `SELECT count(*) FROM readings`).Scan(&rows); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "%d readings: %d rows in %d transactions, %d dead letter\n", readings, rows, t.commits, stats.DeadLettered)
	if rows != readings-1 || stats.DeadLettered != 1 {
		return errors.New("the table has not got each reading")
	}
	if t.commits > readings/20 {
		return errors.New("the batches are too small")
	}
	return nil
}
