package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

const (
	maxLines = 5000
	maxQty   = 1_000_000
	maxPrice = 100_000_000 // pence
)

// orders keeps the orders and runs the sagas that fulfil and cancel them.
type orders struct {
	ledger
	sagas  *sqlsaga.Store
	runner *saga.Runner

	placing    *saga.Definition[fulfilment]
	cancelling *saga.Definition[cancelling]

	inventory, payments, shipping *peer
}

// An orderStatus is what orders tells about one order.
type orderStatus struct {
	order
	Status     string `json:"status"`
	TotalPence int    `json:"total_pence"`
	Reason     string `json:"reason,omitempty"`
}

// accepted is the answer to an order or a cancellation.
type accepted struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

func (o *orders) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /orders", endpoint(http.StatusAccepted, o.postOrder))
	mux.Handle("GET /orders/{id}", endpoint(http.StatusOK, o.getOrder))
	mux.Handle("POST /orders/{id}/cancellations", endpoint(http.StatusAccepted, o.postCancellation))
	return mux
}

// postOrder takes an order and starts its saga in one transaction. An id that is known is answered as it stands now.
func (o *orders) postOrder(r *http.Request) (any, error) {
	in, err := read[order](r)
	if err != nil {
		return nil, err
	}
	if err := checkOrder(in); err != nil {
		return nil, err
	}
	out := accepted{ID: in.ID}
	ctx := r.Context()
	err = o.change(ctx, in.ID, func(tx *sql.Tx) error {
		status, err := statusOf(ctx, tx, in.ID)
		if err == nil {
			out.Status = status
			return nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		out.Status = "pending"
		return o.insert(ctx, tx, in)
	})
	if err != nil {
		return nil, err
	}
	o.runner.Notify()
	return out, nil
}

func (o *orders) insert(ctx context.Context, tx *sql.Tx, in order) error {
	lines, err := json.Marshal(in.Lines)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO orders (id, customer, country, status, total_pence) VALUES ($1, $2, $3, 'pending', $4)`,
		in.ID, in.Customer, in.Country, in.totalPence()); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO order_lines (order_id, line, sku, qty, price_pence)
		SELECT $2, key, value->>'sku', CAST(value->>'qty' AS BIGINT), CAST(value->>'price_pence' AS BIGINT) FROM `+o.dialect.elements, string(lines), in.ID); err != nil {
		return err
	}
	placed := orderEvent(orderPlaced, in.ID)
	placed.TotalPence = in.totalPence()
	if err := o.publish(ctx, tx, placed); err != nil {
		return err
	}
	return sqlsaga.StartTx(ctx, o.sagas, tx, o.placing, "order-"+in.ID, fulfilment{Order: in})
}

func (o *orders) getOrder(r *http.Request) (any, error) {
	ctx, id := r.Context(), r.PathValue("id")
	out := orderStatus{order: order{ID: id}}
	tx, err := o.db.BeginTx(ctx, &o.dialect.reading)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // it only reads
	err = tx.QueryRowContext(ctx, `SELECT customer, country, status, total_pence, reason FROM orders WHERE id = $1`, id).
		Scan(&out.Customer, &out.Country, &out.Status, &out.TotalPence, &out.Reason)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refuse(http.StatusNotFound, "no order %q", id)
	}
	if err != nil {
		return nil, err
	}
	out.Lines, err = linesOf(ctx, tx, id)
	return out, err
}

// postCancellation takes back what a customer no longer wants. The order shows it at once, so that nothing can be
// cancelled twice; money and goods follow in a saga that cannot be undone.
func (o *orders) postCancellation(r *http.Request) (any, error) {
	in, err := read[cancellation](r)
	if err != nil {
		return nil, err
	}
	if in.OrderID != r.PathValue("id") {
		return nil, refuse(http.StatusUnprocessableEntity, "order_id %q is not the order of this address", in.OrderID)
	}
	if err := checkCancellation(in); err != nil {
		return nil, err
	}
	out := accepted{ID: in.ID}
	ctx := r.Context()
	err = o.change(ctx, in.OrderID, func(tx *sql.Tx) error {
		var orderID string
		err := tx.QueryRowContext(ctx, `SELECT order_id, status FROM cancellations WHERE id = $1`, in.ID).Scan(&orderID, &out.Status)
		switch {
		case err == nil && orderID == in.OrderID:
			return nil
		case err == nil:
			return refuse(http.StatusConflict, "the id %q belongs to a cancellation of another order", in.ID)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		out.Status = "pending"
		return o.cancel(ctx, tx, in)
	})
	if err != nil {
		return nil, err
	}
	o.runner.Notify()
	return out, nil
}

func (o *orders) cancel(ctx context.Context, tx *sql.Tx, in cancellation) error {
	status, err := statusOf(ctx, tx, in.OrderID)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return refuse(http.StatusNotFound, "no order %q", in.OrderID)
	case err != nil:
		return err
	case status == "pending":
		return &refusal{Code: http.StatusConflict, Reason: "the order is still being processed", Wait: retryLater}
	case status != "confirmed":
		return refuse(http.StatusConflict, "the order is %s", status)
	}
	lines, err := linesOf(ctx, tx, in.OrderID)
	if err != nil {
		return err
	}
	left, amount, err := without(lines, in.Lines)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO cancellations (id, order_id, status, amount_pence) VALUES ($1, $2, 'pending', $3)`,
		in.ID, in.OrderID, amount); err != nil {
		return err
	}
	if err := o.reduce(ctx, tx, in.OrderID, left, amount); err != nil {
		return err
	}
	return sqlsaga.StartTx(ctx, o.sagas, tx, o.cancelling, "cancellation-"+in.ID, cancelling{Cancellation: in, AmountPence: amount})
}

// reduce leaves the order with the lines given. When nothing is left it is cancelled, and keeps its lines for the record.
func (o *orders) reduce(ctx context.Context, tx *sql.Tx, id string, left []line, amount int) error {
	if units(left) == 0 {
		_, err := tx.ExecContext(ctx, `UPDATE orders SET status = 'cancelled', reason = 'cancelled by the customer' WHERE id = $1`, id)
		return err
	}
	lines, err := json.Marshal(left)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE order_lines SET qty = CAST(value->>'qty' AS BIGINT) FROM `+o.dialect.elements+`
		WHERE order_id = $2 AND line = key`, string(lines), id); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE orders SET total_pence = total_pence - $1 WHERE id = $2`, amount, id)
	return err
}

func statusOf(ctx context.Context, tx *sql.Tx, id string) (status string, err error) {
	err = tx.QueryRowContext(ctx, `SELECT status FROM orders WHERE id = $1`, id).Scan(&status)
	return status, err
}

// linesOf reads the lines of an order, each at the index of its line number.
func linesOf(ctx context.Context, tx *sql.Tx, id string) (lines []line, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT sku, qty, price_pence FROM order_lines WHERE order_id = $1 ORDER BY line`, id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var l line
		if err := rows.Scan(&l.SKU, &l.Qty, &l.PricePence); err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
	return lines, rows.Err()
}

// without takes the gone lines out of lines and says what they had cost. A line that names no price matches any.
func without(lines, gone []line) (left []line, amount int, err error) {
	left = append(left, lines...)
	for _, g := range gone {
		for i := range left {
			if left[i].SKU != g.SKU || g.PricePence != 0 && left[i].PricePence != g.PricePence {
				continue
			}
			n := min(left[i].Qty, g.Qty)
			left[i].Qty -= n
			g.Qty -= n
			amount += n * left[i].PricePence
		}
		if g.Qty > 0 {
			return nil, 0, refuse(http.StatusConflict, "more than was ordered: %s", g.SKU)
		}
	}
	return left, amount, nil
}

func units(lines []line) int {
	n := 0
	for _, l := range lines {
		n += l.Qty
	}
	return n
}

func checkOrder(in order) error {
	if err := checkID("order", in.ID); err != nil {
		return err
	}
	for _, l := range in.Lines {
		if l.PricePence < 1 || l.PricePence > maxPrice {
			return refuse(http.StatusUnprocessableEntity, "%s: price_pence is %d: it must be 1 to %d", l.SKU, l.PricePence, maxPrice)
		}
	}
	return checkLines(in.Lines)
}

func checkCancellation(in cancellation) error {
	if err := checkID("cancellation", in.ID); err != nil {
		return err
	}
	return checkLines(in.Lines)
}

func checkLines(lines []line) error {
	if len(lines) == 0 || len(lines) > maxLines {
		return refuse(http.StatusUnprocessableEntity, "there are %d lines: there must be 1 to %d", len(lines), maxLines)
	}
	for _, l := range lines {
		if l.SKU == "" || l.Qty < 1 || l.Qty > maxQty {
			return refuse(http.StatusUnprocessableEntity, "%q: qty is %d: it must be 1 to %d of a sku", l.SKU, l.Qty, maxQty)
		}
	}
	return nil
}
