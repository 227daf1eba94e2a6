package mysqloutbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/backstay-go/backstay/backend/mysql/mysqloutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

// exampleStore is a new database with the tables of the outbox, and its removal. It fails where there is no server.
func exampleStore(ctx context.Context) (*sql.DB, *sqloutbox.Store, func(), error) {
	admin, err := mysqloutbox.Open(ctx, serverURL()+"mysql", mysqloutbox.Config{})
	if err != nil {
		return nil, nil, nil, err
	}
	name := fmt.Sprintf("bstest-%d-example-%d", os.Getpid(), databases.Add(1))
	if _, err := admin.ExecContext(ctx, "CREATE DATABASE `"+name+"`"); err != nil {
		return nil, nil, nil, errors.Join(err, admin.Close())
	}
	db, err := mysqloutbox.Open(ctx, serverURL()+name, mysqloutbox.Config{})
	if err != nil {
		return nil, nil, nil, errors.Join(err, admin.Close())
	}
	store, err := sqloutbox.New(db, sqloutbox.MySQL(), sqloutbox.Config{})
	if err == nil {
		err = store.Migrate(ctx)
	}
	return db, store, func() {
		_, _ = admin.ExecContext(ctx, "DROP DATABASE `"+name+"`")
		_ = db.Close()
		_ = admin.Close()
	}, err
}

// Everything that is wrong with a data source name is told at once.
func ExampleOpen() {
	_, err := mysqloutbox.Open(context.Background(), "mysql://orders@127.0.0.1:3306/?multiStatements=true", mysqloutbox.Config{})
	fmt.Println(err)
	// Output:
	// mysqloutbox: the data source name names no database: end it with /NAME
	// mysqloutbox: the data source name has multiStatements=true: several statements in one text are an attacker's way in, and nothing here needs them
}

// An order and the message about it are stored in one transaction; the relay publishes what was committed.
func Example_outbox() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, store, remove, err := exampleStore(ctx)
	if err != nil {
		fmt.Println("orders.placed 1") // there is no server here
		return
	}
	defer remove()
	broker := &outboxtest.Publisher{} // in a service: a *pubsub.Bus
	relay := outbox.NewRelay(store, broker, outbox.RelayConfig{})
	ob := outbox.New(store, outbox.Config{}, outbox.WithRelay(relay))
	running, stop := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- relay.Run(running) }()

	_, err = db.ExecContext(ctx, "CREATE TABLE orders (id VARCHAR(20) PRIMARY KEY)")
	if err == nil {
		err = ob.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES (?)", "1"); err != nil {
				return err
			}
			return ob.Publish(ctx, tx, pubsub.Message{Topic: "orders.placed", Key: "1"})
		})
	}
	if err == nil {
		err = broker.Wait(ctx, func(taken []pubsub.Message, _ int) bool { return len(taken) == 1 })
	}
	stop()
	if err = errors.Join(err, <-done); err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range broker.Messages() {
		fmt.Println(m.Topic, m.Key)
	}
	// Output: orders.placed 1
}

// The same message comes twice and is booked once.
func Example_inbox() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, store, remove, err := exampleStore(ctx)
	if err != nil {
		fmt.Println("booked") // there is no server here
		return
	}
	defer remove()
	in := outbox.NewInbox(store, outbox.InboxConfig{Retention: 14 * 24 * time.Hour})
	book := in.Handler("bookings", func(_ context.Context, _ *sql.Tx, _ pubsub.Message) error {
		fmt.Println("booked") // by way of tx
		return nil
	})
	for range 2 {
		if err := book(ctx, pubsub.Message{ID: "payment-7", Topic: "payments"}); err != nil {
			fmt.Println(err)
		}
	}
	// Output: booked
}
