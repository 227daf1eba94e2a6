// Choreography carries out orders without anybody in charge: each service reacts to events of the others and publishes its own, through an
// outbox and an inbox in its own database. The broker delivers everything twice. Compare examples/saga, which has a conductor.
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

// A service has a database of its own, in which it notes what becomes of each order, and hears of the others by events alone.
type service struct {
	name  string
	db    *sql.DB
	store *sqloutbox.Store
	ob    *outbox.Outbox[*sql.Tx]
	relay *outbox.Relay
}

// twice publishes everything two times, as happens when a relay dies at the wrong moment.
type twice struct{ *pubsub.Bus }

func (b twice) Publish(ctx context.Context, m ...pubsub.Message) error {
	return errors.Join(b.Bus.Publish(ctx, m...), b.Bus.Publish(ctx, m...))
}

func open(ctx context.Context, dir, name string, bus twice) (*service, error) {
	db, err := sqlite.Open(filepath.Join(dir, name+".db"), sqlite.Config{})
	if err != nil {
		return nil, err
	}
	store, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	relay := outbox.NewRelay(store, bus, outbox.RelayConfig{Name: name})
	_, err = db.ExecContext(ctx, "CREATE TABLE steps (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, state TEXT NOT NULL)")
	if err = errors.Join(err, store.Migrate(ctx)); err != nil {
		err = errors.Join(err, db.Close())
	}
	return &service{name, db, store, outbox.New(store, outbox.Config{Name: name}, outbox.WithRelay(relay)), relay}, err
}

// record writes the order's state and publishes an event of it, both or neither.
func (s *service) record(ctx context.Context, tx *sql.Tx, order, state string) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO steps (id, state) VALUES (?, ?)", order, state)
	return errors.Join(err, s.ob.Publish(ctx, tx, pubsub.Message{Topic: s.name + "." + state, Key: order}))
}

// A rule is all that a service knows of the others: what it does after which event, and what instead for the one unlucky order.
type rule struct{ service, after, state, unlucky, instead string }

// rules are the whole process. Compensation is an event like any other: a refund follows when the stock has run out.
var rules = []rule{
	{"payments", "orders.placed", "taken", "yacht", "refused"},
	{"stock", "payments.taken", "reserved", "mug", "missing"},
	{"payments", "stock.missing", "refunded", "", ""},
	{"orders", "stock.reserved", "confirmed", "", ""},
	{"orders", "payments.refused", "cancelled", "", ""},
	{"orders", "payments.refunded", "cancelled", "", ""},
}

// follow is the handler of a rule: what it does happens once, however often the message comes.
func (s *service) follow(r rule) pubsub.Handler {
	return outbox.NewInbox(s.store, outbox.InboxConfig{}).Handler(r.after, func(ctx context.Context, tx *sql.Tx, m pubsub.Message) error {
		return s.record(ctx, tx, m.Key, map[bool]string{false: r.state, true: r.instead}[m.Key == r.unlucky])
	})
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "choreography-")
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	bus, services, done, started := twice{pubsub.New(mempubsub.New(mempubsub.Config{}))}, map[string]*service{}, make(chan error), 0
	defer func() {
		for stop(); started > 0; started-- {
			err = errors.Join(err, <-done)
		}
		for _, s := range services {
			err = errors.Join(err, s.db.Close())
		}
		err = errors.Join(err, bus.Close(), os.RemoveAll(dir))
	}()
	start := func(run func() error) { started++; go func() { done <- run() }() }
	for _, name := range []string{"orders", "payments", "stock"} {
		s, err := open(ctx, dir, name, bus)
		if err != nil {
			return err
		}
		services[name] = s
		start(func() error { return s.relay.Run(ctx) })
	}
	for _, r := range rules {
		s := services[r.service]
		c, err := bus.Open(ctx, pubsub.Subscription{Topic: r.after, Group: r.service})
		if err != nil {
			return err
		}
		start(func() error { return c.Run(ctx, s.follow(r)) })
	}
	return tell(ctx, out, services["orders"], services["payments"], services["stock"])
}

// tell places three orders, waits until each has ended, and shows what every service has written of it.
func tell(ctx context.Context, out io.Writer, orders, payments, stock *service) error {
	for _, o := range []struct{ id, want string }{
		{"tea", "orders: placed, confirmed; payments: taken; stock: reserved"},
		{"mug", "orders: placed, cancelled; payments: taken, refunded; stock: missing"},
		{"yacht", "orders: placed, cancelled; payments: refused; stock: -"},
	} {
		err := orders.ob.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error { return orders.record(ctx, tx, o.id, "placed") })
		for err == nil && orders.steps(ctx, o.id) == "placed" && ctx.Err() == nil {
			<-time.After(5 * time.Millisecond)
		}
		got := fmt.Sprintf("orders: %s; payments: %s; stock: %s", orders.steps(ctx, o.id), payments.steps(ctx, o.id), stock.steps(ctx, o.id))
		fmt.Fprintf(out, "%-6s %s\n", o.id, got)
		if err != nil || got != o.want {
			return errors.Join(err, fmt.Errorf("%s: %s, want %s", o.id, got, o.want))
		}
	}
	return nil
}

// steps is what the service has written of an order. Anything done twice would be there twice.
func (s *service) steps(ctx context.Context, order string) (states string) {
	_ = s.db.QueryRowContext(ctx, "SELECT coalesce(group_concat(state, ', ' ORDER BY seq), '-') FROM steps WHERE id = ?", order).Scan(&states)
	return states
}
