package main

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// fulfilment is the state of the saga that fulfils an order.
type fulfilment struct {
	Order order `json:"order"`
}

// cancelling is the state of the saga that follows a cancellation.
type cancelling struct {
	Cancellation cancellation `json:"cancellation"`
	AmountPence  int          `json:"amount_pence"`
}

// What the services send each other.
type (
	lineList struct {
		Lines []line `json:"lines"`
	}
	amount struct {
		AmountPence int `json:"amount_pence"`
	}
	goodsReturn struct {
		OrderID string `json:"order_id"`
		Lines   []line `json:"lines"`
	}
	refund struct {
		OrderID     string `json:"order_id"`
		AmountPence int    `json:"amount_pence"`
	}
)

var (
	// A bank that is away for a while is no reason to disappoint a customer: the schedule lasts for minutes.
	patient = saga.Retry{MaxAttempts: 100, Initial: 100 * time.Millisecond, Max: 2 * time.Second}
	// What has to be undone is tried for longer still, before a person is asked.
	stubborn = saga.Retry{MaxAttempts: 1000, Initial: 100 * time.Millisecond, Max: 5 * time.Second}
	// After the pivot there is no way back.
	forever = saga.Retry{MaxAttempts: -1, Initial: 100 * time.Millisecond, Max: 5 * time.Second}
)

// define sets up both sagas. The first step of each does nothing going forward: in the one it is what is undone last, in
// the other it is the pivot, after which the cancellation can only be completed.
func (o *orders) define() (err error) {
	o.placing, err = saga.Define("place-order", 1,
		saga.Step[fulfilment]{Name: "accept", Do: nothing[fulfilment], Undo: o.reject, UndoRetry: stubborn},
		saga.Step[fulfilment]{Name: "reserve", Do: o.reserve, Undo: o.release, Retry: patient, UndoRetry: stubborn},
		saga.Step[fulfilment]{Name: "charge", Do: o.charge, Undo: o.void, Retry: patient, UndoRetry: stubborn},
		saga.Step[fulfilment]{Name: "book", Do: o.book, Undo: o.unbook, Retry: patient, UndoRetry: stubborn},
		saga.Step[fulfilment]{Name: "confirm", Do: o.confirm, Retry: forever, Pivot: true},
	)
	if err != nil {
		return err
	}
	o.cancelling, err = saga.Define("cancel-order", 1,
		saga.Step[cancelling]{Name: "accept", Do: nothing[cancelling], Pivot: true},
		saga.Step[cancelling]{Name: "refund", Do: o.refund, Retry: forever},
		saga.Step[cancelling]{Name: "restock", Do: o.restock, Retry: forever},
		saga.Step[cancelling]{Name: "take back", Do: o.takeBack, Retry: forever},
		saga.Step[cancelling]{Name: "finish", Do: o.finish, Retry: forever},
	)
	return err
}

func nothing[State any](context.Context, *State) error { return nil }

func (o *orders) reserve(ctx context.Context, s *fulfilment) error {
	return o.note(ctx, s, o.inventory.call(ctx, http.MethodPut, "/reservations/"+s.Order.ID, lineList{s.Order.Lines}, nil))
}

func (o *orders) release(ctx context.Context, s *fulfilment) error {
	return o.inventory.call(ctx, http.MethodDelete, "/reservations/"+s.Order.ID, nil, nil)
}

func (o *orders) charge(ctx context.Context, s *fulfilment) error {
	return o.note(ctx, s, o.payments.call(ctx, http.MethodPut, "/charges/"+s.Order.ID, amount{s.Order.totalPence()}, nil))
}

func (o *orders) void(ctx context.Context, s *fulfilment) error {
	return o.payments.call(ctx, http.MethodDelete, "/charges/"+s.Order.ID, nil, nil)
}

func (o *orders) book(ctx context.Context, s *fulfilment) error {
	return o.note(ctx, s, o.shipping.call(ctx, http.MethodPut, "/shipments/"+s.Order.ID, lineList{s.Order.Lines}, nil))
}

func (o *orders) unbook(ctx context.Context, s *fulfilment) error {
	return o.shipping.call(ctx, http.MethodDelete, "/shipments/"+s.Order.ID, nil, nil)
}

// note writes down why a step was refused for good, for the customer: an Undo is not told.
func (o *orders) note(ctx context.Context, s *fulfilment, err error) error {
	refused, ok := errors.AsType[*refusal](err)
	if !ok || !refused.Permanent() {
		return err
	}
	if _, dbErr := o.db.ExecContext(ctx, `UPDATE orders SET reason = $1 WHERE id = $2 AND status = 'pending'`, refused.Reason, s.Order.ID); dbErr != nil {
		return dbErr
	}
	return refused
}

func (o *orders) confirm(ctx context.Context, s *fulfilment) error {
	return o.change(ctx, s.Order.ID, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `UPDATE orders SET status = 'confirmed', reason = '' WHERE id = $1 AND status = 'pending'`, s.Order.ID)
		if err != nil || n == 0 {
			return err
		}
		confirmed := orderEvent(orderConfirmed, s.Order.ID)
		confirmed.TotalPence = s.Order.totalPence()
		return o.publish(ctx, tx, confirmed)
	})
}

func (o *orders) reject(ctx context.Context, s *fulfilment) error {
	return o.change(ctx, s.Order.ID, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `UPDATE orders SET status = 'cancelled', reason = CASE reason WHEN '' THEN 'it could not be fulfilled in time' ELSE reason END
			WHERE id = $1 AND status = 'pending'`, s.Order.ID)
		if err != nil || n == 0 {
			return err
		}
		cancelled := orderEvent(orderCancelled, s.Order.ID)
		if err := tx.QueryRowContext(ctx, `SELECT reason FROM orders WHERE id = $1`, s.Order.ID).Scan(&cancelled.Reason); err != nil {
			return err
		}
		return o.publish(ctx, tx, cancelled)
	})
}

func (o *orders) refund(ctx context.Context, s *cancelling) error {
	c := s.Cancellation
	return o.payments.call(ctx, http.MethodPut, "/refunds/"+c.ID, refund{c.OrderID, s.AmountPence}, nil)
}

func (o *orders) restock(ctx context.Context, s *cancelling) error {
	c := s.Cancellation
	return o.inventory.call(ctx, http.MethodPut, "/returns/"+c.ID, goodsReturn{c.OrderID, c.Lines}, nil)
}

func (o *orders) takeBack(ctx context.Context, s *cancelling) error {
	c := s.Cancellation
	return o.shipping.call(ctx, http.MethodPut, "/returns/"+c.ID, goodsReturn{c.OrderID, c.Lines}, nil)
}

// finish closes the cancellation and tells what is left of the order by now, which another cancellation may have
// reduced further.
func (o *orders) finish(ctx context.Context, s *cancelling) error {
	c := s.Cancellation
	return o.change(ctx, c.OrderID, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `UPDATE cancellations SET status = 'done' WHERE id = $1 AND status = 'pending'`, c.ID)
		if err != nil || n == 0 {
			return err
		}
		var status, reason string
		var total int
		if err := tx.QueryRowContext(ctx, `SELECT status, total_pence, reason FROM orders WHERE id = $1`, c.OrderID).
			Scan(&status, &total, &reason); err != nil {
			return err
		}
		e := cancellationEvent(orderReduced, c.OrderID, c.ID)
		if status == "cancelled" {
			e = cancellationEvent(orderCancelled, c.OrderID, c.ID)
		}
		e.TotalPence, e.Reason = total, reason
		return o.publish(ctx, tx, e)
	})
}
