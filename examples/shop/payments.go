package main

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
)

// payments takes the money of an order through the bank and gives it back. The bank is asked outside of any
// transaction, by keys that never change, and may be asked again at any time: its answer is what counts.
type payments struct {
	ledger
	bank *bankClient
}

// A paymentStatus is what payments tells about one order.
type paymentStatus struct {
	OrderID       string `json:"order_id"`
	Status        string `json:"status"`
	AmountPence   int    `json:"amount_pence"`
	RefundedPence int    `json:"refunded_pence"`
}

func (p *payments) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("PUT /charges/{order}", endpoint(http.StatusOK, p.charge))
	mux.Handle("GET /charges/{order}", endpoint(http.StatusOK, p.getCharge))
	mux.Handle("DELETE /charges/{order}", endpoint(http.StatusOK, p.void))
	mux.Handle("PUT /refunds/{id}", endpoint(http.StatusOK, p.refund))
	return mux
}

func (p *payments) charge(r *http.Request) (any, error) {
	in, err := read[amount](r)
	if err != nil {
		return nil, err
	}
	ctx, id := r.Context(), r.PathValue("order")
	if _, err := p.db.ExecContext(ctx, `INSERT INTO payments (order_id, status, amount_pence) VALUES ($1, 'pending', $2)
		ON CONFLICT DO NOTHING`, id, in.AmountPence); err != nil {
		return nil, err
	}
	status, err := p.status(ctx, id)
	if err != nil {
		return nil, err
	}
	if status == "pending" {
		if status, err = p.bank.charge(ctx, id, in.AmountPence); err != nil {
			return nil, err
		}
		if status, err = p.decide(ctx, id, status); err != nil {
			return nil, err
		}
	}
	switch status {
	case "charged":
		return nil, nil
	case "declined":
		return nil, refuse(http.StatusPaymentRequired, "the card was declined")
	default:
		return nil, refuse(http.StatusConflict, "the payment is %s", status)
	}
}

// decide notes the bank's outcome, unless the payment was decided meanwhile, and returns how it stands.
func (p *payments) decide(ctx context.Context, id, outcome string) (status string, err error) {
	events := map[string]string{"charged": paymentCharged, "declined": paymentDeclined, "voided": paymentVoided}
	err = p.change(ctx, id, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `UPDATE payments SET status = $1 WHERE order_id = $2 AND status = 'pending'`, outcome, id)
		if err != nil || n == 0 {
			return err
		}
		return p.publish(ctx, tx, orderEvent(events[outcome], id))
	})
	if err != nil {
		return "", err
	}
	return p.status(ctx, id)
}

func (p *payments) status(ctx context.Context, id string) (status string, err error) {
	err = p.db.QueryRowContext(ctx, `SELECT status FROM payments WHERE order_id = $1`, id).Scan(&status)
	return status, err
}

// void undoes a charge. The bank is asked even when nothing is known of a charge here, since its answer may be lost or
// the charge still on its way.
func (p *payments) void(r *http.Request) (any, error) {
	ctx, id := r.Context(), r.PathValue("order")
	status, err := p.status(ctx, id)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	if status == "declined" || status == "voided" {
		return nil, nil
	}
	if err := p.bank.void(ctx, id); err != nil {
		return nil, err
	}
	return nil, p.change(ctx, id, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `INSERT INTO payments (order_id, status, amount_pence) VALUES ($1, 'voided', 0)
			ON CONFLICT (order_id) DO UPDATE SET status = 'voided' WHERE payments.status <> 'voided'`, id)
		if err != nil || n == 0 {
			return err
		}
		return p.publish(ctx, tx, orderEvent(paymentVoided, id))
	})
}

func (p *payments) refund(r *http.Request) (any, error) {
	in, err := read[refund](r)
	if err != nil {
		return nil, err
	}
	ctx, id := r.Context(), r.PathValue("id")
	var known bool
	if err := p.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM refunds WHERE id = $1)`, id).Scan(&known); err != nil || known {
		return nil, err
	}
	if err := p.bank.refund(ctx, id, in.OrderID, in.AmountPence); err != nil {
		return nil, err
	}
	return nil, p.change(ctx, in.OrderID, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `INSERT INTO refunds (id, order_id, amount_pence) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			id, in.OrderID, in.AmountPence)
		if err != nil || n == 0 {
			return err
		}
		return p.publish(ctx, tx, cancellationEvent(paymentRefunded, in.OrderID, id))
	})
}

func (p *payments) getCharge(r *http.Request) (any, error) {
	out := paymentStatus{OrderID: r.PathValue("order")}
	err := p.db.QueryRowContext(r.Context(), `SELECT status, amount_pence,
		(SELECT coalesce(sum(amount_pence), 0) FROM refunds WHERE refunds.order_id = payments.order_id)
		FROM payments WHERE order_id = $1`, out.OrderID).Scan(&out.Status, &out.AmountPence, &out.RefundedPence)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refuse(http.StatusNotFound, "no payment for order %q", out.OrderID)
	}
	return out, err
}
