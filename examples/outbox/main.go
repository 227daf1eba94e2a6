// Outbox bills orders by messages that are stored in the transaction of the order: one that is rolled back sends nothing, one whose
// message comes twice is billed once, and one that the broker refuses waits for a person, while the others go on.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

func main() {
	dsn := flag.String("db", "", "a PostgreSQL database, as postgres://postgres@127.0.0.1/postgres; without it, SQLite in a temporary file")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, *dsn); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer, dsn string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "outbox-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, dialect, remove, err := open(ctx, dsn, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	store, err := sqloutbox.New(db, dialect, sqloutbox.Config{})
	if err != nil {
		return err
	}
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "CREATE TABLE orders (id VARCHAR(20) PRIMARY KEY, billed INTEGER NOT NULL)"); err != nil {
		return err
	}
	b := &broker{Bus: pubsub.New(mempubsub.New(mempubsub.Config{}))}
	defer func() { err = errors.Join(err, b.Close()) }()
	s := &story{out: out, db: db, store: store, broker: b, handled: make(chan string, 10)}
	return s.tell(ctx)
}

// tell places orders before any relay runs, as when the process died right after the commit.
func (s *story) tell(ctx context.Context) (err error) {
	parked := make(chan outbox.Failure, 10)
	relay := outbox.NewRelay(s.store, s.broker, outbox.RelayConfig{}, outbox.OnFailure(func(f outbox.Failure) { parked <- f }))
	ob := outbox.New(s.store, outbox.Config{}, outbox.WithRelay(relay))
	for _, order := range []string{"tea", "mug", "yacht", "jam"} {
		s.say("%s: %v", order, outcome(s.place(ctx, ob, order)))
	}
	stop, err := s.start(ctx, relay)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := s.deliveries(ctx, 4); err != nil { // tea and jam, twice
		return err
	}
	f, err := wait(ctx, parked)
	if err != nil {
		return err
	}
	s.say("parked: %s: %v", f.Record.Message.Key, f.Err)
	s.broker.mended.Store(true)
	n, err := s.store.Requeue(ctx, f.Record.Seq) // or: backstay outbox requeue SEQ
	if err != nil {
		return err
	}
	s.say("requeued: %d", n)
	relay.Notify()
	if err := s.deliveries(ctx, 2); err != nil {
		return err
	}
	var orders, billed int
	if err := s.db.QueryRowContext(ctx, "SELECT COUNT(*), SUM(billed) FROM orders").Scan(&orders, &billed); err != nil {
		return err
	}
	if orders != 3 || billed != 3 {
		return fmt.Errorf("%d orders were billed %d times", orders, billed)
	}
	s.say("%d orders, %d bills", orders, billed)
	return nil
}

var errTooDear = errors.New("too dear")

// place stores the order and the message in one transaction. The key orders the messages of one order, and of nothing else.
func (s *story) place(ctx context.Context, ob *outbox.Outbox[*sql.Tx], order string) error {
	return ob.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES ('"+order+"', 0)"); err != nil {
			return err
		}
		if err := ob.Publish(ctx, tx, pubsub.Message{Topic: "orders", Key: order}); err != nil {
			return err
		}
		if order == "yacht" {
			return errTooDear
		}
		return nil
	})
}

// start runs billing and the relay until stop.
func (s *story) start(ctx context.Context, relay *outbox.Relay) (stop func() error, err error) {
	billing, err := s.broker.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "billing", Concurrency: 1})
	if err != nil {
		return nil, err
	}
	bill := outbox.NewInbox(s.store, outbox.InboxConfig{}).Handler("billing", s.bill)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 2)
	go func() { done <- relay.Run(ctx) }()
	go func() {
		done <- billing.Run(ctx, func(ctx context.Context, m pubsub.Message) error {
			defer func() { s.handled <- m.Key }()
			return bill(ctx, m)
		})
	}()
	return func() error {
		cancel()
		return errors.Join(<-done, <-done)
	}, nil
}

// bill runs once for each order, however often its message comes.
func (s *story) bill(ctx context.Context, tx *sql.Tx, m pubsub.Message) error {
	s.say("billed: %s", m.Key)
	_, err := tx.ExecContext(ctx, "UPDATE orders SET billed = billed + 1 WHERE id = '"+m.Key+"'")
	return err
}
