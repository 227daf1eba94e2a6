package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// database is a new file with the tables of the outbox, and its removal.
func database() (*sql.DB, *sqloutbox.Store, func()) {
	dir, err := os.MkdirTemp("", "example")
	must(err)
	db, err := sqlite.Open(filepath.Join(dir, "shop.db"), sqlite.Config{})
	must(err)
	store, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{})
	must(err)
	must(store.Migrate(context.Background()))
	return db, store, func() {
		_ = db.Close()
		_ = os.RemoveAll(dir)
	}
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "example")
	must(err)
	defer func() { _ = os.RemoveAll(dir) }()

	db, err := sqlite.Open(filepath.Join(dir, "what? 100% #1.db"), sqlite.Config{})
	must(err)
	defer func() { _ = db.Close() }()

	var mode string
	err = db.QueryRow("PRAGMA journal_mode").Scan(&mode)
	fmt.Println(mode, err)

	_, err = sqlite.Open(":memory:", sqlite.Config{})
	fmt.Println(err)
	// Output:
	// wal <nil>
	// sqlite: ":memory:" is not a path: give a file; an in-memory database cannot be shared between connections
}

// An order and the message about it are stored in one transaction; the relay publishes what was committed.
func Example_outbox() {
	db, store, remove := database()
	defer remove()
	_, err := db.Exec("CREATE TABLE orders (id TEXT PRIMARY KEY)")
	must(err)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	bus := publisherFunc(func(_ context.Context, msgs ...pubsub.Message) error { // in a service, a *pubsub.Bus
		for _, m := range msgs {
			fmt.Println("published:", m.Topic, m.Key)
		}
		cancel() // the example ends here; a service goes on
		return nil
	})
	relay := outbox.NewRelay(store, bus, outbox.RelayConfig{})
	ob := outbox.New(store, outbox.Config{}, outbox.WithRelay(relay))

	place := func(id string, refuse error) error {
		return ob.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES (?)", id); err != nil {
				return err
			}
			if err := ob.Publish(ctx, tx, pubsub.Message{Topic: "orders.placed", Key: id}); err != nil {
				return err
			}
			return refuse // rolls back both
		})
	}
	fmt.Println("order 1:", place("1", errors.New("no credit")))
	fmt.Println("order 2:", place("2", nil))
	fmt.Println("relay:", relay.Run(ctx))
	// Output:
	// order 1: no credit
	// order 2: <nil>
	// published: orders.placed 2
	// relay: <nil>
}

// A message that is delivered three times has its effect once.
func Example_inbox() {
	db, store, remove := database()
	defer remove()
	_, err := db.Exec("CREATE TABLE stock (n INTEGER); INSERT INTO stock VALUES (10)")
	must(err)
	inbox := outbox.NewInbox(store, outbox.InboxConfig{})
	handler := inbox.Handler("warehouse", func(ctx context.Context, tx *sql.Tx, _ pubsub.Message) error {
		_, err := tx.ExecContext(ctx, "UPDATE stock SET n = n - 1")
		return err
	})
	for range 3 {
		must(handler(context.Background(), pubsub.Message{ID: "order 7", Topic: "orders.placed"}))
	}
	var n int
	err = db.QueryRow("SELECT n FROM stock").Scan(&n)
	fmt.Println("stock:", n, err)
	fmt.Printf("%+v\n", inbox.Stats())
	// Output:
	// stock: 9 <nil>
	// {Handled:1 Duplicates:2}
}

// A command that answers: the duplicate gets the answer of the first.
func Example_once() {
	_, store, remove := database()
	defer remove()
	inbox := outbox.NewInbox(store, outbox.InboxConfig{})
	invoices := 100
	for range 2 {
		err := store.InTx(context.Background(), func(ctx context.Context, tx *sql.Tx) error {
			number, err := outbox.Once(ctx, inbox, tx, "billing", "request 42", func(context.Context) (int, error) {
				invoices++
				return invoices, nil
			})
			fmt.Println("invoice", number)
			return err
		})
		must(err)
	}
	// Output:
	// invoice 101
	// invoice 101
}

// A message that the broker refuses is parked and holds its key. A person mends the cause and requeues it.
func Example_parked() {
	_, store, remove := database()
	defer remove()
	ctx := context.Background()
	ob := outbox.New(store, outbox.Config{})
	err := ob.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		return ob.Publish(ctx, tx,
			pubsub.Message{ID: "a1", Topic: "orders", Key: "a"},
			pubsub.Message{ID: "a2", Topic: "orders", Key: "a"},
			pubsub.Message{ID: "b1", Topic: "orders", Key: "b"})
	})
	must(err)

	broken := true
	publish := publisherFunc(func(_ context.Context, msgs ...pubsub.Message) error {
		var failed []pubsub.Failure
		for i, m := range msgs {
			if m.ID == "a1" && broken {
				failed = append(failed, pubsub.Failure{Index: i, ID: m.ID, Err: errors.New("no such stream")})
				continue
			}
			fmt.Println("published:", m.ID)
		}
		if failed != nil {
			return &pubsub.PublishError{Failed: failed, Total: len(msgs)}
		}
		return nil
	})
	drain := func(done func(outbox.Backlog) bool) {
		ctx, cancel := context.WithCancel(ctx)
		relay := outbox.NewRelay(store, publish, outbox.RelayConfig{MaxAttempts: 1})
		ended := make(chan error, 1)
		go func() { ended <- relay.Run(ctx) }()
		for backlog := (outbox.Backlog{Pending: 1}); !done(backlog); {
			backlog, err = store.Backlog(ctx)
			must(err)
		}
		cancel()
		must(<-ended)
	}

	drain(func(b outbox.Backlog) bool { return b.Parked == 1 })
	list, err := store.Parked(ctx, 0, 10)
	must(err)
	for _, p := range list {
		fmt.Printf("parked: %s: %s\n", p.Record.Message.ID, p.Reason)
	}
	broken = false
	n, err := store.Requeue(ctx, list[0].Record.Seq)
	fmt.Println("requeued:", n, err)
	drain(func(b outbox.Backlog) bool { return b.Pending == 0 })
	// Output:
	// published: b1
	// parked: a1: no such stream
	// requeued: 1 <nil>
	// published: a1
	// published: a2
}
