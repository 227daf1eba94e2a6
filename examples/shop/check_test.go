package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/backstay-go/backstay/saga"
	"github.com/stretchr/testify/require"
)

func TestCheckHoldsForAHealthyRun(t *testing.T) {
	s := openScene(t, t.TempDir())
	s.healthy()
	invariants, err := check(t.Context(), s.dbs)
	require.NoError(t, err)
	require.Equal(t, []invariant{
		{ordersSettled, true, "22 orders and 2 cancellations accepted, each carried through"},
		{moneyAgrees, true, "£399.80 charged - £43.48 refunded = £356.32 confirmed"},
		{stockAgrees, true, "1,500 units at the start = 1,447 left + 53 shipped, product by product"},
		{effectsOnce, true, "135 events committed, each applied once by each consumer"},
		{outboxesEmpty, true, "4 outboxes, nothing unpublished and nothing parked"},
		{sagasEnded, true, "21 completed, 3 compensated, none unfinished or stuck"},
		{readModelAgrees, true, "22 views equal 22 orders"},
		{enoughAccepted, true, "22 of 23 orders (95.6 %)"},
		{enoughConfirmed, true, "18 of 22 accepted orders (81.8 %)"},
	}, invariants)
	require.True(t, holdAll(invariants))
}

func TestCheckHoldsBeforeTheFirstOrder(t *testing.T) {
	invariants, err := check(t.Context(), openScene(t, t.TempDir()).dbs)
	require.NoError(t, err)
	require.Len(t, invariants, 9)
	require.True(t, holdAll(invariants))
	require.False(t, holdAll(nil))
}

// A corruption is one way in which a run can have gone wrong, and must be seen as that and nothing else.
type corruption struct {
	name   string
	flips  string // the invariant's name
	detail string // what the checker says
	damage func(s *scene)
}

func TestCheckCatches(t *testing.T) {
	dir := healthyDir(t)
	seen := map[string]int{}
	for _, corruptions := range [][]corruption{settledCorruptions, moneyCorruptions, stockCorruptions, shipmentCorruptions,
		eventCorruptions, queueCorruptions, viewCorruptions, shareCorruptions} {
		for _, c := range corruptions {
			seen[c.flips]++
			t.Run(c.name, func(t *testing.T) {
				s := copyScene(t, dir)
				c.damage(s)
				invariants, err := check(t.Context(), s.dbs)
				require.NoError(t, err)
				for _, i := range invariants {
					require.Equal(t, i.Name != c.flips, i.OK, "%s: %s", i.Name, i.Detail)
					if i.Name == c.flips {
						require.Equal(t, c.detail, i.Detail)
					}
				}
				require.False(t, holdAll(invariants))
			})
		}
	}
	require.Len(t, seen, 9)
	for name, n := range seen {
		require.GreaterOrEqual(t, n, 2, name)
	}
}

var settledCorruptions = []corruption{
	{"an accepted order was lost", ordersSettled, "order o-lost was accepted and does not exist", func(s *scene) {
		s.answer("o-lost", "order", 202)
	}},
	{"an accepted order was left pending", ordersSettled, "order o-half is pending", func(s *scene) {
		s.place("o-half")
	}},
	{"an order was left pending whose customer got no answer", ordersSettled, "order o-half is pending", func(s *scene) {
		s.place("o-half")
		s.change(s.dbs.client, `DELETE FROM answers WHERE id = 'o-half'`)
	}},
	{"an accepted cancellation was lost", ordersSettled, "cancellation c-lost was accepted and is missing", func(s *scene) {
		s.answer("c-lost", "cancellation", 202)
	}},
	{"an accepted cancellation was left pending", ordersSettled, "cancellation c-o-back was accepted and is pending", func(s *scene) {
		s.change(s.dbs.orders, `UPDATE cancellations SET status = 'pending' WHERE order_id = ?`, givenBackOrder)
	}},
	{"many accepted orders were lost", ordersSettled,
		"order o-lost-0 was accepted and does not exist; order o-lost-1 was accepted and does not exist; " +
			"order o-lost-2 was accepted and does not exist; and 2 more", func(s *scene) {
			for i := range 5 {
				s.answer(fmt.Sprintf("o-lost-%d", i), "order", 202)
			}
		}},
}

var moneyCorruptions = []corruption{
	{"a penny too little was charged", moneyAgrees,
		"order o-01 (confirmed) is worth £19.99, and the bank charged £19.98 and refunded £0.00", func(s *scene) {
			s.change(s.dbs.bank, `UPDATE charges SET amount_pence = amount_pence - 1 WHERE order_id = 'o-01'`)
		}},
	{"a confirmed order was never charged", moneyAgrees,
		"order o-01 (confirmed) is worth £19.99, and the bank charged £0.00 and refunded £0.00", func(s *scene) {
			s.change(s.dbs.bank, `DELETE FROM charges WHERE order_id = 'o-01'`)
		}},
	{"an order was charged twice", moneyAgrees,
		"order o-01 (confirmed) is worth £19.99, and the bank charged £39.98 and refunded £0.00; order o-01 was charged 2 times", func(s *scene) {
			s.change(s.dbs.bank, `INSERT INTO charges SELECT 'again', order_id, amount_pence, outcome, 0 FROM charges WHERE order_id = 'o-01'`)
		}},
	{"an order was charged twice and once refunded", moneyAgrees, "order o-01 was charged 2 times", func(s *scene) {
		s.change(s.dbs.bank, `INSERT INTO charges SELECT 'again', order_id, amount_pence, outcome, 0 FROM charges WHERE order_id = 'o-01'`)
		s.change(s.dbs.bank, `INSERT INTO refunds VALUES ('amends', 'o-01', ?, 0)`, orderPence)
	}},
	{"a cancelled order kept the money", moneyAgrees,
		"order o-carrier (cancelled) is worth £0.00, and the bank charged £19.99 and refunded £0.00", func(s *scene) {
			s.change(s.dbs.bank, `DELETE FROM refunds WHERE order_id = ?`, carrierOrder)
		}},
	{"a declined card was charged after all", moneyAgrees,
		"order o-declined (cancelled) is worth £0.00, and the bank charged £19.99 and refunded £0.00", func(s *scene) {
			s.change(s.dbs.bank, `UPDATE charges SET outcome = 'charged' WHERE order_id = ?`, declinedOrder)
		}},
	{"a partial refund took place twice", moneyAgrees,
		"order o-reduced (confirmed) is worth £16.49, and the bank charged £19.99 and refunded £7.00", func(s *scene) {
			s.change(s.dbs.bank, `INSERT INTO refunds SELECT 'again', order_id, amount_pence, 0 FROM refunds WHERE order_id = ?`, reducedOrder)
		}},
	{"two errors cancel out", moneyAgrees,
		"order o-01 (confirmed) is worth £19.99, and the bank charged £19.98 and refunded £0.00; " +
			"order o-02 (confirmed) is worth £19.99, and the bank charged £20.00 and refunded £0.00", func(s *scene) {
			s.change(s.dbs.bank, `UPDATE charges SET amount_pence = amount_pence - 1 WHERE order_id = 'o-01'`)
			s.change(s.dbs.bank, `UPDATE charges SET amount_pence = amount_pence + 1 WHERE order_id = 'o-02'`)
		}},
	{"the bank charged for an order that nobody placed", moneyAgrees,
		"order o-none (missing) is worth £0.00, and the bank charged £0.01 and refunded £0.00", func(s *scene) {
			s.change(s.dbs.bank, `INSERT INTO charges VALUES ('k', 'o-none', 1, 'charged', 0)`)
		}},
	{"the bank refunded an order that nobody placed", moneyAgrees,
		"order o-none (missing) is worth £0.00, and the bank charged £0.00 and refunded £0.01", func(s *scene) {
			s.change(s.dbs.bank, `INSERT INTO refunds VALUES ('k', 'o-none', 1, 0)`)
		}},
}

var stockCorruptions = []corruption{
	{"a unit vanished", stockAgrees, "product mug: 1000 at the start, 963 left, 35 shipped", func(s *scene) {
		s.change(s.dbs.inventory, `UPDATE products SET stock_left = 963 WHERE sku = 'mug'`)
	}},
	{"more was sold than there was", stockAgrees, "product tray: -1 left", func(s *scene) {
		s.change(s.dbs.inventory, `UPDATE products SET stock_start = stock_start - stock_left - 1, stock_left = -1 WHERE sku = 'tray'`)
	}},
	{"a product was shipped that is not in the catalogue", stockAgrees,
		"order o-01: 0 of product cup ordered, 1 shipped; product cup: 0 at the start, 0 left, 1 shipped", func(s *scene) {
			s.change(s.dbs.shipping, `INSERT INTO shipment_lines VALUES ('o-01', 'cup', 1)`)
		}},
	{"a reservation was left for a cancelled order", stockAgrees, "order o-declined is cancelled, and its stock is still reserved", func(s *scene) {
		s.change(s.dbs.inventory, `UPDATE reservations SET status = 'reserved' WHERE order_id = ?`, declinedOrder)
		s.view(declinedOrder, "stock", "reserved")
	}},
	{"a reservation was left for an order that nobody placed", stockAgrees, "order o-none is missing, and its stock is still reserved", func(s *scene) {
		s.change(s.dbs.inventory, `INSERT INTO reservations VALUES ('o-none', 'reserved')`)
		s.change(s.dbs.inventory, `INSERT INTO reservation_lines VALUES ('o-none', 'mug', 1)`)
	}},
}

var shipmentCorruptions = []corruption{
	{"a confirmed order was never dispatched", stockAgrees,
		"order o-01 is confirmed, and its shipment is booked; product mug: 1000 at the start, 965 left, 33 shipped; " +
			"product tray: 500 at the start, 482 left, 17 shipped", func(s *scene) {
			s.change(s.dbs.shipping, `UPDATE shipments SET status = 'booked' WHERE order_id = 'o-01'`)
			s.view("o-01", "shipment", "booked")
		}},
	{"a confirmed order has no shipment", stockAgrees, "order o-01 is confirmed, and its shipment is missing", func(s *scene) {
		s.change(s.dbs.shipping, `DELETE FROM shipments WHERE order_id = 'o-01'`)
		s.change(s.dbs.inventory, `UPDATE products SET stock_left = stock_left + iif(sku = 'mug', 2, 1)`)
		s.change(s.dbs.shipping, `UPDATE events SET order_id = 'o-02' WHERE order_id = 'o-01'`)
		s.view("o-01", "shipment", "")
	}},
	{"a shipment holds what was given back", stockAgrees, "order o-reduced: 1 of product mug ordered, 2 shipped", func(s *scene) {
		s.change(s.dbs.shipping, `UPDATE shipment_lines SET qty = 2 WHERE order_id = ? AND sku = 'mug'`, reducedOrder)
		s.change(s.dbs.inventory, `UPDATE products SET stock_left = stock_left - 1 WHERE sku = 'mug'`)
	}},
	{"two customers got each other's parcel", stockAgrees,
		"order o-01: 2 of product mug ordered, 1 shipped; order o-reduced: 1 of product mug ordered, 2 shipped", func(s *scene) {
			s.change(s.dbs.shipping, `UPDATE shipment_lines SET qty = 1 WHERE order_id = 'o-01' AND sku = 'mug'`)
			s.change(s.dbs.shipping, `UPDATE shipment_lines SET qty = 2 WHERE order_id = ? AND sku = 'mug'`, reducedOrder)
		}},
	{"a cancelled order is still to be dispatched", stockAgrees, "order o-carrier is cancelled, and its shipment is booked", func(s *scene) {
		s.change(s.dbs.shipping, `INSERT INTO shipments VALUES (?, 'booked')`, carrierOrder)
	}},
	{"a cancelled order is with its customer", stockAgrees,
		"order o-back is cancelled, and its shipment is dispatched", func(s *scene) {
			s.change(s.dbs.shipping, `UPDATE shipments SET status = 'dispatched' WHERE order_id = ?`, givenBackOrder)
			s.view(givenBackOrder, "shipment", "dispatched")
			s.change(s.dbs.shipping, `UPDATE shipment_lines SET qty = 1 WHERE order_id = ? AND sku = 'mug'`, givenBackOrder)
			s.change(s.dbs.inventory, `UPDATE products SET stock_left = stock_left - 1 WHERE sku = 'mug'`)
		}},
}

var eventCorruptions = []corruption{
	{"an event never reached the read model", effectsOnce, "event o-01/payment.charged: committed 1, applied 0 by views", func(s *scene) {
		s.change(s.dbs.views, `DELETE FROM applied WHERE event_id = 'o-01/payment.charged'`)
	}},
	{"an event was applied twice to the read model", effectsOnce, "event o-01/stock.reserved: committed 1, applied 2 by views", func(s *scene) {
		s.change(s.dbs.views, `INSERT INTO applied VALUES ('o-01/stock.reserved')`)
	}},
	{"an event never reached shipping", effectsOnce, "event o-01/order.placed: committed 1, applied 0 by shipping", func(s *scene) {
		s.change(s.dbs.shipping, `DELETE FROM applied WHERE event_id = 'o-01/order.placed'`)
	}},
	{"an event was applied twice by shipping", effectsOnce, "event o-01/order.confirmed: committed 1, applied 2 by shipping", func(s *scene) {
		s.change(s.dbs.shipping, `INSERT INTO applied VALUES ('o-01/order.confirmed')`)
	}},
	{"an event was applied that was rolled back", effectsOnce,
		"event o-01/order.placed: committed 0, applied 1 by shipping; event o-01/order.placed: committed 0, applied 1 by views", func(s *scene) {
			s.change(s.dbs.orders, `DELETE FROM events WHERE id = 'o-01/order.placed'`)
		}},
	{"shipping applied what it does not listen to", effectsOnce,
		"event o-01/payment.charged: committed 0, applied 1 by shipping", func(s *scene) {
			s.change(s.dbs.shipping, `INSERT INTO applied VALUES ('o-01/payment.charged')`)
		}},
	{"two services gave two events one id", effectsOnce, "event o-01/stock.reserved: committed 2, applied 1 by views", func(s *scene) {
		s.change(s.dbs.payments, `INSERT INTO events VALUES ('o-01/stock.reserved', 'x', 'o-01')`)
	}},
}

var queueCorruptions = []corruption{
	{"a message was left in an outbox", outboxesEmpty, "payments: 1 not published, 0 of them parked", func(s *scene) {
		s.publish(topicPayments)
		s.fail(topicPayments, false)
	}},
	{"a message was parked", outboxesEmpty,
		"orders: 1 not published, 1 of them parked; shipping: 1 not published, 0 of them parked", func(s *scene) {
			s.publish(topicOrders)
			s.fail(topicOrders, true)
			s.publish(topicShipping)
		}},
	{"a saga was left running", sagasEnded, "saga order-x is running", func(s *scene) { s.saga("order-x", saga.Running) }},
	{"a saga was left half undone", sagasEnded, "saga order-x is compensating", func(s *scene) { s.saga("order-x", saga.Compensating) }},
	{"a saga got stuck", sagasEnded, "saga order-x is stuck", func(s *scene) { s.saga("order-x", saga.Stuck) }},
	{"a saga was given up", sagasEnded, "saga order-x is aborted", func(s *scene) { s.saga("order-x", saga.Aborted) }},
}

var viewCorruptions = []corruption{
	{"a view shows an old status", readModelAgrees,
		"order o-01: confirmed and £19.99 in orders, pending and £19.99 in the read model", func(s *scene) { s.view("o-01", "status", "pending") }},
	{"a view shows an old total", readModelAgrees,
		"order o-reduced: confirmed and £16.49 in orders, confirmed and £19.99 in the read model", func(s *scene) {
			s.change(s.dbs.views, `UPDATE order_view SET total_pence = ? WHERE order_id = ?`, orderPence, reducedOrder)
		}},
	{"an order is not in the read model", readModelAgrees, "order o-01: confirmed in orders, missing in the read model", func(s *scene) {
		s.change(s.dbs.views, `DELETE FROM order_view WHERE order_id = 'o-01'`)
	}},
	{"the read model shows an order that nobody placed", readModelAgrees,
		"order o-none: missing in orders, confirmed in the read model", func(s *scene) {
			s.change(s.dbs.views, `INSERT INTO order_view (order_id, status) VALUES ('o-none', 'confirmed')`)
		}},
	{"a view shows no payment", readModelAgrees, `order o-01: its payment is charged, and "" in the read model`,
		func(s *scene) { s.view("o-01", "payment", "") }},
	{"a view shows an old payment", readModelAgrees, `order o-carrier: its payment is voided, and "charged" in the read model`,
		func(s *scene) { s.view(carrierOrder, "payment", "charged") }},
	{"a view shows a refund that did not take place", readModelAgrees, `order o-01: its payment is charged, and "refunded" in the read model`,
		func(s *scene) { s.view("o-01", "payment", "refunded") }},
	{"a view shows an old shipment", readModelAgrees, `order o-01: its shipment is dispatched, and "booked" in the read model`,
		func(s *scene) { s.view("o-01", "shipment", "booked") }},
	{"a view shows a shipment that there is not", readModelAgrees, `order o-declined: its shipment is missing, and "booked" in the read model`,
		func(s *scene) { s.view(declinedOrder, "shipment", "booked") }},
	{"a view shows an old reservation", readModelAgrees, `order o-declined: its stock is released, and "reserved" in the read model`,
		func(s *scene) { s.view(declinedOrder, "stock", "reserved") }},
}

var shareCorruptions = []corruption{
	{"the gateway refused too many", enoughAccepted, "22 of 24 orders (91.6 %)", func(s *scene) { s.answer("o-no", "order", 503) }},
	{"the gateway refused everybody", enoughAccepted, "22 of 222 orders (9.9 %)", func(s *scene) {
		for i := range 199 {
			s.answer(fmt.Sprintf("o-no-%d", i), "order", 422)
		}
	}},
	{"too few were confirmed", enoughConfirmed, "18 of 31 accepted orders (58.0 %)", func(s *scene) {
		for i := range 9 {
			s.outOfStock(fmt.Sprintf("o-none-%d", i))
		}
	}},
	{"too many were taken back", enoughConfirmed, "12 of 22 accepted orders (54.5 %)", func(s *scene) {
		for i := range 6 {
			id := fmt.Sprintf("o-%02d", i+1)
			s.cancelled(id)
		}
	}},
}

func TestSharesAreExact(t *testing.T) {
	for _, c := range []struct {
		part, whole int
		ok          bool
	}{{19, 20, true}, {18, 19, false}, {95, 100, true}, {949, 1000, false}, {0, 0, true}, {0, 1, false}, {1, 1, true}} {
		require.Equal(t, c.ok, shareOf(enoughAccepted, 95, c.part, c.whole, "orders").OK, "%d of %d", c.part, c.whole)
	}
}

func TestExactlySixtyPercentConfirmedIsEnough(t *testing.T) {
	s := openScene(t, t.TempDir())
	for i := range 3 {
		s.exec(s.dbs.inventory, `INSERT OR IGNORE INTO products VALUES ('mug', 'Mug', 350, 9, 9), ('tray', 'Tray', 1299, 9, 9)`)
		s.confirmed(fmt.Sprintf("o-%d", i))
	}
	s.outOfStock("o-3")
	s.outOfStock("o-4")
	invariants, err := check(t.Context(), s.dbs)
	require.NoError(t, err)
	require.True(t, holdAll(invariants), invariants)
}

func TestCheckSaysWhichDatabaseItCannotRead(t *testing.T) {
	s := openScene(t, t.TempDir())
	s.exec(s.dbs.bank, `DROP TABLE refunds`)
	_, err := check(t.Context(), s.dbs)
	require.ErrorContains(t, err, "refunds")
	_, err = tally(t.Context(), s.dbs)
	require.ErrorContains(t, err, "refunds")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = check(ctx, s.dbs)
	require.ErrorIs(t, err, context.Canceled)
}
