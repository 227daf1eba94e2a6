package main

import (
	"context"
	"database/sql"
	"errors"
	"net/http"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// shipping books a parcel for an order and sends it when the order is confirmed, which it learns from an event.
type shipping struct {
	ledger
	inbox *outbox.Inbox[*sql.Tx]
	seed  uint64
	chaos bool
}

// A shipmentStatus is what shipping tells about one order.
type shipmentStatus struct {
	OrderID string `json:"order_id"`
	Status  string `json:"status"`
	Units   int    `json:"units"`
}

func (s *shipping) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("PUT /shipments/{order}", endpoint(http.StatusOK, s.book))
	mux.Handle("GET /shipments/{order}", endpoint(http.StatusOK, s.getShipment))
	mux.Handle("DELETE /shipments/{order}", endpoint(http.StatusOK, s.unbook))
	mux.Handle("PUT /returns/{id}", endpoint(http.StatusOK, s.takeBack))
	return mux
}

func (s *shipping) book(r *http.Request) (any, error) {
	in, err := read[lineList](r)
	if err != nil {
		return nil, err
	}
	ctx, id := r.Context(), r.PathValue("order")
	if s.chaos && luck(s.seed, "no carrier", id) < 0.03 {
		return nil, refuse(http.StatusUnprocessableEntity, "no carrier for this address")
	}
	goods := s.goodsOf(in.Lines)
	return nil, s.change(ctx, id, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `INSERT INTO shipments (order_id, status) VALUES ($1, 'booked') ON CONFLICT DO NOTHING`, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return s.repeated(ctx, tx, id)
		}
		if _, err := tx.ExecContext(ctx, goods.with(`INSERT INTO shipment_lines (order_id, sku, qty)
			SELECT $2, sku, qty FROM goods`), goods.json, id); err != nil {
			return err
		}
		return s.publish(ctx, tx, orderEvent(shipmentBooked, id))
	})
}

// repeated answers a booking that was decided before.
func (s *shipping) repeated(ctx context.Context, tx *sql.Tx, id string) error {
	var status string
	if err := tx.QueryRowContext(ctx, `SELECT status FROM shipments WHERE order_id = $1`, id).Scan(&status); err != nil {
		return err
	}
	if status == "cancelled" {
		return refuse(http.StatusConflict, "the shipment is cancelled")
	}
	return nil
}

// unbook cancels a booking. When it comes first it leaves its mark, so that a late booking is refused.
func (s *shipping) unbook(r *http.Request) (any, error) {
	ctx, id := r.Context(), r.PathValue("order")
	return nil, s.change(ctx, id, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `INSERT INTO shipments (order_id, status) VALUES ($1, 'cancelled')
			ON CONFLICT (order_id) DO UPDATE SET status = 'cancelled' WHERE shipments.status = 'booked'`, id)
		if err != nil || n == 0 {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE shipment_lines SET qty = 0 WHERE order_id = $1`, id); err != nil {
			return err
		}
		return s.publish(ctx, tx, orderEvent(shipmentCancelled, id))
	})
}

// takeBack takes some lines out of the parcel, or back from the customer. With the last unit the shipment is cancelled.
func (s *shipping) takeBack(r *http.Request) (any, error) {
	in, err := read[goodsReturn](r)
	if err != nil {
		return nil, err
	}
	ctx, id := r.Context(), r.PathValue("id")
	goods := s.goodsOf(in.Lines)
	return nil, s.change(ctx, in.OrderID, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `INSERT INTO returns (id, order_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, id, in.OrderID)
		if err != nil || n == 0 {
			return err
		}
		n, err = changed(ctx, tx, goods.with(`UPDATE shipment_lines SET qty = shipment_lines.qty - goods.qty FROM goods
			WHERE order_id = $2 AND shipment_lines.sku = goods.sku AND shipment_lines.qty >= goods.qty`), goods.json, in.OrderID)
		if err != nil {
			return err
		}
		if n < goods.kinds {
			return refuse(http.StatusConflict, "more than was shipped for %s", in.OrderID)
		}
		n, err = changed(ctx, tx, `UPDATE shipments SET status = 'cancelled' WHERE order_id = $1
			AND NOT EXISTS (SELECT 1 FROM shipment_lines WHERE order_id = $1 AND qty > 0)`, in.OrderID)
		if err != nil {
			return err
		}
		typ := shipmentReturned
		if n > 0 {
			typ = shipmentCancelled
		}
		return s.publish(ctx, tx, cancellationEvent(typ, in.OrderID, id))
	})
}

func (s *shipping) getShipment(r *http.Request) (any, error) {
	out := shipmentStatus{OrderID: r.PathValue("order")}
	err := s.db.QueryRowContext(r.Context(), `SELECT status,
		(SELECT coalesce(sum(qty), 0) FROM shipment_lines WHERE shipment_lines.order_id = shipments.order_id)
		FROM shipments WHERE order_id = $1`, out.OrderID).Scan(&out.Status, &out.Units)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refuse(http.StatusNotFound, "no shipment for order %q", out.OrderID)
	}
	return out, err
}

// consumer handles the events of orders.
func (s *shipping) consumer() pubsub.Handler { return consume(s.inbox, s.dialect, "shipping", s.apply) }

// apply sends the parcel of a confirmed order, unless everything in it was cancelled before.
func (s *shipping) apply(ctx context.Context, tx *sql.Tx, e event) error {
	if e.Type != orderConfirmed {
		return nil
	}
	n, err := changed(ctx, tx, `UPDATE shipments SET status = 'dispatched' WHERE order_id = $1 AND status = 'booked'`, e.OrderID)
	if err != nil || n == 0 {
		return err
	}
	return s.publish(ctx, tx, orderEvent(shipmentDispatched, e.OrderID))
}
