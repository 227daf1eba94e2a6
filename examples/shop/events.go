package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// A ledger is the database of one service together with its outbox: what the service does and what it tells the
// others change in one transaction.
type ledger struct {
	db      *sql.DB
	dialect dialect
	topic   pubsub.Topic[event]
	outbox  *outbox.Outbox[*sql.Tx]
}

func newLedger(db *sql.DB, d dialect, topic string, store outbox.Store[*sql.Tx], relay *outbox.Relay) ledger {
	return ledger{
		db:      db,
		dialect: d,
		topic:   pubsub.JSON(topic, func(e event) string { return e.OrderID }),
		outbox:  outbox.New(store, outbox.Config{Name: topic}, outbox.WithRelay(relay)),
	}
}

// change runs fn in a transaction that has the order to itself, so that fn may look first and write afterwards, and the
// events of an order are published in the order in which they happened. fn may run more than once.
func (l ledger) change(ctx context.Context, orderID string, fn func(tx *sql.Tx) error) error {
	return l.dialect.again(ctx, func(ctx context.Context) error {
		return l.outbox.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			if err := l.dialect.lock(ctx, tx, orderID); err != nil {
				return err
			}
			return fn(tx)
		})
	})
}

// publish tells the others of e when tx commits. The event's id follows from what happened: a second event for the
// same thing is an error, and its transaction does not commit.
func (l ledger) publish(ctx context.Context, tx *sql.Tx, e event) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO events (id, type, order_id) VALUES ($1, $2, $3)`, e.ID, e.Type, e.OrderID); err != nil {
		return fmt.Errorf("event %s: %w", e.ID, err)
	}
	m, err := l.topic.Message(e)
	if err != nil {
		return err
	}
	m.ID = e.ID
	return l.outbox.Publish(ctx, tx, m)
}

// orderEvent is an event that happens at most once to an order.
func orderEvent(typ, orderID string) event {
	return event{ID: orderID + "/" + typ, Type: typ, OrderID: orderID}
}

// cancellationEvent is an event that happens at most once to a cancellation.
func cancellationEvent(typ, orderID, id string) event {
	return event{ID: orderID + "/" + id + "/" + typ, Type: typ, OrderID: orderID}
}

// changed runs a statement and says how many rows it changed. That is how the services recognise a repeat.
func changed(ctx context.Context, tx *sql.Tx, statement string, args ...any) (int, error) {
	res, err := tx.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	return int(n), err
}

// consume makes a handler that applies each event of the inbox once, in a transaction of the inbox's database, and
// notes it there as applied.
func consume(in *outbox.Inbox[*sql.Tx], d dialect, consumer string, apply func(ctx context.Context, tx *sql.Tx, e event) error) pubsub.Handler {
	h := in.Handler(consumer, func(ctx context.Context, tx *sql.Tx, m pubsub.Message) error {
		var e event
		if err := json.Unmarshal(m.Payload, &e); err != nil {
			return pubsub.DeadLetter(err)
		}
		if err := d.lock(ctx, tx, e.OrderID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO applied (event_id) VALUES ($1)`, m.ID); err != nil {
			return err
		}
		return apply(ctx, tx, e)
	})
	return func(ctx context.Context, m pubsub.Message) error {
		return d.again(ctx, func(ctx context.Context) error { return h(ctx, m) })
	}
}

var errLostAck = errors.New("the acknowledgement was lost")

// losingAcks reports failure, after the work is done and committed, for a share of first deliveries.
func losingAcks(seed uint64, consumer string, h pubsub.Handler) pubsub.Handler {
	return func(ctx context.Context, m pubsub.Message) error {
		err := h(ctx, m)
		if err == nil && m.Attempt <= 1 && luck(seed, "lost acknowledgement by "+consumer, m.ID) < 0.025 {
			return pubsub.RetryAfter(10*time.Millisecond, errLostAck)
		}
		return err
	}
}
