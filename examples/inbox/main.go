// Inbox credits payments to accounts, each once, though the broker delivers every message twice and one attempt fails half way; and it
// gives a caller who asks a second time the first receipt instead of a second payment.
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
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "inbox-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := sqlite.Open(filepath.Join(dir, "bank.db"), sqlite.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	store, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{})
	if err != nil {
		return err
	}
	if err := store.Migrate(ctx); err != nil { // the table of what was handled stands beside the service's own
		return err
	}
	if _, err := db.ExecContext(ctx, "CREATE TABLE accounts (name TEXT PRIMARY KEY, pence INTEGER NOT NULL); INSERT INTO accounts VALUES ('anna', 0)"); err != nil {
		return err
	}
	b := &bank{out: out, db: db, inbox: outbox.NewInbox(store, outbox.InboxConfig{}), fails: true}
	return errors.Join(b.consume(ctx), b.withdrawTwice(ctx))
}

type bank struct {
	out   io.Writer
	db    *sql.DB
	inbox *outbox.Inbox[*sql.Tx]
	fails bool // the first attempt does
}

// credit is the handler. What it writes through tx is committed together with the message's ID, or not at all.
func (b *bank) credit(ctx context.Context, tx *sql.Tx, m pubsub.Message) error {
	_, err := tx.ExecContext(ctx, "UPDATE accounts SET pence = pence + 100 WHERE name = ?", m.Key)
	if err == nil && b.fails {
		b.fails = false
		fmt.Fprintf(b.out, "%s: fails after its update, which is rolled back\n", m.ID)
		return errors.New("the power is out")
	}
	fmt.Fprintf(b.out, "%s: a pound for %s\n", m.ID, m.Key)
	return err
}

// consume publishes two payments, each twice, and handles whatever comes.
func (b *bank) consume(ctx context.Context) error {
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "payments", Group: "accounts", Ordered: true, Concurrency: 1, BackoffInitial: 10 * time.Millisecond})
	if err != nil {
		return err
	}
	for _, id := range []string{"payment-1", "payment-1", "payment-2", "payment-2"} {
		if err := bus.Publish(ctx, pubsub.Message{ID: id, Topic: "payments", Key: "anna"}); err != nil {
			return err
		}
	}
	credit := b.inbox.Handler("accounts", b.credit)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	handled := 0
	err = c.Run(ctx, func(ctx context.Context, m pubsub.Message) error {
		err := credit(ctx, m)
		if err == nil {
			if handled++; handled == 4 {
				stop()
			}
		}
		return err
	})
	return errors.Join(err, bus.Close(), b.expect(context.WithoutCancel(ctx), fmt.Sprintf("%d messages handled", handled), 200))
}

// withdrawTwice is what happens when the reply to a request was lost: the same request comes again.
func (b *bank) withdrawTwice(ctx context.Context) error {
	for range 2 {
		tx, err := b.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		receipt, err := outbox.Once(ctx, b.inbox, tx, "withdrawals", "request-7", func(ctx context.Context) (left int, err error) {
			err = tx.QueryRowContext(ctx, "UPDATE accounts SET pence = pence - 50 WHERE name = 'anna' RETURNING pence").Scan(&left)
			return left, err
		})
		if err != nil {
			return errors.Join(err, tx.Rollback())
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		fmt.Fprintf(b.out, "request-7: 50 pence are paid out, %d are left\n", receipt)
	}
	return b.expect(ctx, "two requests", 150)
}

func (b *bank) expect(ctx context.Context, after string, want int) error {
	var pence int
	if err := b.db.QueryRowContext(ctx, "SELECT pence FROM accounts").Scan(&pence); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "after %s the account has %d pence\n", after, pence)
	if pence != want {
		return fmt.Errorf("after %s the account has %d pence, want %d", after, pence, want)
	}
	return nil
}
