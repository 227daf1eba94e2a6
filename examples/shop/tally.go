package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// tally counts what the databases hold after a run. The rest of the result is known to those who took part in it.
func tally(ctx context.Context, dbs databases) (result, error) {
	var r result
	err := errors.Join(
		readCounts(ctx, dbs.client, `SELECT count(*), count(*) FILTER (WHERE code BETWEEN 200 AND 299) FROM answers WHERE kind = 'order'`,
			&r.Orders, &r.Accepted),
		readCounts(ctx, dbs.orders, `SELECT count(*) FILTER (WHERE status = 'confirmed'), count(*) FILTER (WHERE status = 'cancelled'),
			count(*) FILTER (WHERE status NOT IN ('confirmed', 'cancelled')),
			coalesce(sum(total_pence) FILTER (WHERE status = 'confirmed'), 0) FROM orders`,
			&r.Confirmed, &r.Cancelled, &r.Unfinished, &r.ConfirmedPence),
		readCounts(ctx, dbs.inventory, `SELECT coalesce(sum(qty), 0) FROM reservation_lines NATURAL JOIN reservations
			WHERE status = 'reserved'`, &r.UnitsReserved),
		readCounts(ctx, dbs.shipping, `SELECT coalesce(sum(qty), 0) FROM shipment_lines NATURAL JOIN shipments
			WHERE status = 'dispatched'`, &r.UnitsShipped),
		readCounts(ctx, dbs.bank, `SELECT coalesce(sum(amount_pence), 0) FROM charges WHERE outcome = 'charged'`, &r.ChargedPence),
		readCounts(ctx, dbs.bank, `SELECT coalesce(sum(amount_pence), 0) FROM refunds`, &r.RefundedPence),
		readCounts(ctx, dbs.bank, `SELECT (SELECT coalesce(sum(lost_replies), 0) FROM charges) +
			(SELECT coalesce(sum(lost_replies), 0) FROM refunds)`, &r.LostReplies),
	)
	return r, err
}

// readCounts reads the one row of query.
func readCounts(ctx context.Context, db *sql.DB, query string, into ...any) error {
	if err := db.QueryRowContext(ctx, query).Scan(into...); err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	return nil
}
