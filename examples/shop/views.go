package main

import (
	"context"
	"database/sql"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// views keeps one row for each order, made of events alone: what a customer sees when a list of orders must be fast and
// may be a moment late.
type views struct {
	inbox   *outbox.Inbox[*sql.Tx]
	dialect dialect
}

func (v *views) consumer() pubsub.Handler { return consume(v.inbox, v.dialect, "views", v.apply) }

// words says which column an event sets, and to what. Events of one topic arrive in order for each order; those of
// different topics set different columns, so that their order does not matter.
var words = map[string]struct{ column, word string }{
	orderPlaced:        {"status", "pending"},
	orderConfirmed:     {"status", "confirmed"},
	orderCancelled:     {"status", "cancelled"},
	stockReserved:      {"stock", "reserved"},
	stockReleased:      {"stock", "released"},
	paymentCharged:     {"payment", "charged"},
	paymentDeclined:    {"payment", "declined"},
	paymentVoided:      {"payment", "voided"},
	shipmentBooked:     {"shipment", "booked"},
	shipmentCancelled:  {"shipment", "cancelled"},
	shipmentDispatched: {"shipment", "dispatched"},
}

func (v *views) apply(ctx context.Context, tx *sql.Tx, e event) error {
	if set, ok := words[e.Type]; ok {
		if _, err := tx.ExecContext(ctx, `INSERT INTO order_view (order_id, `+set.column+`) VALUES ($1, $2)
			ON CONFLICT (order_id) DO UPDATE SET `+set.column+` = excluded.`+set.column, e.OrderID, set.word); err != nil {
			return err
		}
	}
	if e.TotalPence == 0 { // not an event of orders, or one that changes no total
		return nil
	}
	_, err := tx.ExecContext(ctx, `UPDATE order_view SET total_pence = $1 WHERE order_id = $2`, e.TotalPence, e.OrderID)
	return err
}
