package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
	"github.com/stretchr/testify/require"
)

// A scene is the databases of a run, made by hand, so that the checker is tested without the shop.
type scene struct {
	t   *testing.T
	dbs databases
}

// openScene opens the databases in dir, making those that are missing.
func openScene(t *testing.T, dir string) *scene {
	s := &scene{t: t}
	for name, schema := range sceneSchemas {
		db, err := sqlite.Open(filepath.Join(dir, name+".db"), sqlite.Config{Synchronous: "normal"})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		*s.db(name) = db
		s.exec(db, schema)
	}
	for service := range s.dbs.services() {
		require.NoError(t, s.outbox(service).Migrate(t.Context()))
	}
	require.NoError(t, s.sagas().Migrate(t.Context()))
	return s
}

func (s *scene) outbox(service string) *sqloutbox.Store {
	store, err := sqloutbox.New(s.dbs.services()[service], sqloutbox.SQLite(), sqloutbox.Config{})
	require.NoError(s.t, err)
	return store
}

func (s *scene) sagas() *sqlsaga.Store {
	store, err := sqlsaga.New(s.dbs.orders, sqlsaga.SQLite())
	require.NoError(s.t, err)
	return store
}

// publish leaves a message in a service's outbox.
func (s *scene) publish(service string) {
	store := s.outbox(service)
	require.NoError(s.t, store.InTx(s.t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		m := pubsub.Message{ID: "m", Topic: service, Key: "o-01"}
		return store.Insert(ctx, tx, []outbox.Record{{Message: m}})
	}))
}

// fail makes every message in a service's outbox one that could not be published: given up, or to be tried again.
func (s *scene) fail(service string, parked bool) {
	store, ctx := s.outbox(service), s.t.Context()
	leases, err := store.Lease(ctx, "relay", time.Minute)
	require.NoError(s.t, err)
	records, err := store.Fetch(ctx, leases, 100)
	require.NoError(s.t, err)
	var failed []outbox.Failure
	for _, r := range records {
		failed = append(failed, outbox.Failure{Record: r, Err: errDiskFull, Parked: parked})
	}
	require.NotEmpty(s.t, failed)
	require.NoError(s.t, store.Settle(ctx, leases, nil, failed))
}

func (s *scene) saga(id string, status saga.Status) {
	created, err := s.sagas().Create(s.t.Context(), saga.Instance{
		ID: id, Ref: saga.Ref{Name: "place-order", Version: 1},
		Progress: saga.Progress{Status: status, Direction: saga.Forward, Step: "confirm", State: []byte("{}")},
	}, 0)
	require.NoError(s.t, err)
	require.True(s.t, created)
}

var sceneSchemas = map[string]string{
	"orders": ordersSchema, "inventory": inventorySchema, "payments": paymentsSchema, "shipping": shippingSchema,
	"views": viewsSchema, "bank": bankSchema, "client": clientSchema,
}

func (s *scene) db(name string) **sql.DB {
	return map[string]**sql.DB{
		"orders": &s.dbs.orders, "inventory": &s.dbs.inventory, "payments": &s.dbs.payments, "shipping": &s.dbs.shipping,
		"views": &s.dbs.views, "bank": &s.dbs.bank, "client": &s.dbs.client,
	}[name]
}

func (s *scene) exec(db *sql.DB, query string, args ...any) {
	s.t.Helper()
	_, err := db.ExecContext(s.t.Context(), query, args...)
	require.NoError(s.t, err, query)
}

// change is exec for statements that must hit something: a corruption that changes nothing would prove nothing.
func (s *scene) change(db *sql.DB, query string, args ...any) {
	s.t.Helper()
	res, err := db.ExecContext(s.t.Context(), query, args...)
	require.NoError(s.t, err, query)
	n, err := res.RowsAffected()
	require.NoError(s.t, err)
	require.Positive(s.t, n, query)
}

// Every order in a scene has two mugs and a tray.
const (
	mugPence   = 350
	trayPence  = 1299
	orderPence = 2*mugPence + trayPence
)

// event commits an event and lets every consumer apply it.
func (s *scene) event(service, order, typ string) {
	id := order + "/" + typ
	s.exec(s.dbs.services()[service], `INSERT INTO events (id, type, order_id) VALUES (?, ?, ?)`, id, typ, order)
	s.exec(s.dbs.views, `INSERT INTO applied (event_id) VALUES (?)`, id)
	if service == topicOrders {
		s.exec(s.dbs.shipping, `INSERT INTO applied (event_id) VALUES (?)`, id)
	}
}

func (s *scene) answer(id, kind string, code int) {
	s.exec(s.dbs.client, `INSERT INTO answers (id, kind, code) VALUES (?, ?, ?)`, id, kind, code)
}

func (s *scene) place(id string) {
	s.answer(id, "order", 202)
	s.exec(s.dbs.orders, `INSERT INTO orders (id, customer, country, status, total_pence) VALUES (?, 'c', 'UK', 'pending', ?)`,
		id, orderPence)
	s.exec(s.dbs.orders, `INSERT INTO order_lines (order_id, line, sku, qty, price_pence) VALUES (?, 0, 'mug', 2, ?), (?, 1, 'tray', 1, ?)`,
		id, mugPence, id, trayPence)
	s.exec(s.dbs.views, `INSERT INTO order_view (order_id, status, total_pence) VALUES (?, 'pending', ?)`, id, orderPence)
	s.event(topicOrders, id, orderPlaced)
}

func (s *scene) reserve(id string) {
	s.exec(s.dbs.inventory, `INSERT INTO reservations (order_id, status) VALUES (?, 'reserved')`, id)
	s.exec(s.dbs.inventory, `INSERT INTO reservation_lines (order_id, sku, qty) VALUES (?, 'mug', 2), (?, 'tray', 1)`, id, id)
	s.exec(s.dbs.inventory, `UPDATE products SET stock_left = stock_left - iif(sku = 'mug', 2, 1)`)
	s.view(id, "stock", "reserved")
	s.event(topicInventory, id, stockReserved)
}

func (s *scene) release(id string) {
	s.exec(s.dbs.inventory, `UPDATE reservations SET status = 'released' WHERE order_id = ?`, id)
	s.exec(s.dbs.inventory, `UPDATE products SET stock_left = stock_left + iif(sku = 'mug', 2, 1)`)
	s.view(id, "stock", "released")
	s.event(topicInventory, id, stockReleased)
}

func (s *scene) charge(id string) {
	s.exec(s.dbs.bank, `INSERT INTO charges (key, order_id, amount_pence, outcome, lost_replies) VALUES (?, ?, ?, 'charged', 1)`,
		"charge/"+id, id, orderPence)
	s.exec(s.dbs.payments, `INSERT INTO payments (order_id, status, amount_pence) VALUES (?, 'charged', ?)`, id, orderPence)
	s.view(id, "payment", "charged")
	s.event(topicPayments, id, paymentCharged)
}

func (s *scene) decline(id string) {
	s.exec(s.dbs.bank, `INSERT INTO charges (key, order_id, amount_pence, outcome) VALUES (?, ?, ?, 'declined')`,
		"charge/"+id, id, orderPence)
	s.exec(s.dbs.payments, `INSERT INTO payments (order_id, status, amount_pence) VALUES (?, 'declined', ?)`, id, orderPence)
	s.view(id, "payment", "declined")
	s.event(topicPayments, id, paymentDeclined)
}

func (s *scene) void(id string) {
	s.exec(s.dbs.bank, `INSERT INTO refunds (key, order_id, amount_pence, lost_replies) VALUES (?, ?, ?, 1)`,
		"void/charge/"+id, id, orderPence)
	s.exec(s.dbs.payments, `UPDATE payments SET status = 'voided' WHERE order_id = ?`, id)
	s.view(id, "payment", "voided")
	s.event(topicPayments, id, paymentVoided)
}

func (s *scene) ship(id string) {
	s.exec(s.dbs.shipping, `INSERT INTO shipments (order_id, status) VALUES (?, 'dispatched')`, id)
	s.exec(s.dbs.shipping, `INSERT INTO shipment_lines (order_id, sku, qty) VALUES (?, 'mug', 2), (?, 'tray', 1)`, id, id)
	s.view(id, "shipment", "dispatched")
	s.event(topicShipping, id, shipmentBooked)
	s.event(topicShipping, id, shipmentDispatched)
}

func (s *scene) end(id, status string, ended saga.Status, event string) {
	s.exec(s.dbs.orders, `UPDATE orders SET status = ? WHERE id = ?`, status, id)
	s.view(id, "status", status)
	s.event(topicOrders, id, event)
	s.saga("order-"+id, ended)
}

// giveBack is a cancellation by the customer: of one mug, or of everything.
func (s *scene) giveBack(id string, all bool) {
	mugs, trays, pence := 1, 0, mugPence
	if all {
		mugs, trays, pence = 2, 1, orderPence
	}
	cancellation := "c-" + id
	s.answer(cancellation, "cancellation", 202)
	s.exec(s.dbs.orders, `INSERT INTO cancellations (id, order_id, status, amount_pence) VALUES (?, ?, 'done', ?)`, cancellation, id, pence)
	if !all {
		s.exec(s.dbs.orders, `UPDATE orders SET total_pence = total_pence - ? WHERE id = ?`, pence, id)
		s.exec(s.dbs.orders, `UPDATE order_lines SET qty = 1 WHERE order_id = ? AND sku = 'mug'`, id)
		s.exec(s.dbs.views, `UPDATE order_view SET total_pence = total_pence - ? WHERE order_id = ?`, pence, id)
	}
	s.exec(s.dbs.bank, `INSERT INTO refunds (key, order_id, amount_pence) VALUES (?, ?, ?)`, cancellation, id, pence)
	s.exec(s.dbs.payments, `INSERT INTO refunds (id, order_id, amount_pence) VALUES (?, ?, ?)`, cancellation, id, pence)
	s.exec(s.dbs.inventory, `INSERT INTO returns (id, order_id) VALUES (?, ?)`, cancellation, id)
	s.exec(s.dbs.inventory, `UPDATE reservation_lines SET qty = qty - iif(sku = 'mug', ?, ?) WHERE order_id = ?`, mugs, trays, id)
	s.exec(s.dbs.inventory, `UPDATE products SET stock_left = stock_left + iif(sku = 'mug', ?, ?)`, mugs, trays)
	s.exec(s.dbs.shipping, `INSERT INTO returns (id, order_id) VALUES (?, ?)`, cancellation, id)
	s.exec(s.dbs.shipping, `UPDATE shipment_lines SET qty = qty - iif(sku = 'mug', ?, ?) WHERE order_id = ?`, mugs, trays, id)
	s.event(topicPayments, id, paymentRefunded)
	s.event(topicInventory, id, stockReturned)
	s.event(topicShipping, id, shipmentReturned)
	s.saga("cancellation-"+cancellation, saga.Completed)
}

func (s *scene) view(id, column, word string) {
	s.exec(s.dbs.views, `UPDATE order_view SET `+column+` = ? WHERE order_id = ?`, word, id)
}

func (s *scene) confirmed(id string) {
	s.place(id)
	s.reserve(id)
	s.charge(id)
	s.ship(id)
	s.end(id, "confirmed", saga.Completed, orderConfirmed)
}

// outOfStock is the plainest order that was cancelled: nothing happened to it outside orders.
func (s *scene) outOfStock(id string) {
	s.place(id)
	s.end(id, "cancelled", saga.Compensated, orderCancelled)
}

// cancelled is the end of a confirmed order of which everything was given back.
func (s *scene) cancelled(id string) {
	s.giveBack(id, true)
	s.exec(s.dbs.inventory, `UPDATE reservations SET status = 'released' WHERE order_id = ?`, id)
	s.exec(s.dbs.shipping, `UPDATE shipments SET status = 'cancelled' WHERE order_id = ?`, id)
	s.view(id, "stock", "released")
	s.view(id, "shipment", "cancelled")
	s.exec(s.dbs.orders, `UPDATE orders SET status = 'cancelled' WHERE id = ?`, id)
	s.view(id, "status", "cancelled")
	s.event(topicOrders, id, orderCancelled)
}

// The orders of a healthy scene beside seventeen plain ones: o-01 to o-17.
const (
	reducedOrder   = "o-reduced"  // its customer gave a mug back
	givenBackOrder = "o-back"     // its customer gave everything back
	declinedOrder  = "o-declined" // by the bank
	carrierOrder   = "o-carrier"  // was charged and then voided
	stockOrder     = "o-stock"
	refusedOrder   = "o-refused" // was never accepted
)

// healthy fills the databases with a run in which everything that can go wrong did, and was put right.
func (s *scene) healthy() {
	s.exec(s.dbs.inventory, `INSERT INTO products (sku, name, price_pence, stock_start, stock_left)
		VALUES ('mug', 'Mug', ?, 1000, 1000), ('tray', 'Tray', ?, 500, 500)`, mugPence, trayPence)
	for i := range 17 {
		s.confirmed(fmt.Sprintf("o-%02d", i+1))
	}
	s.confirmed(reducedOrder)
	s.giveBack(reducedOrder, false)
	s.event(topicOrders, reducedOrder, orderReduced)

	s.confirmed(givenBackOrder)
	s.cancelled(givenBackOrder)

	s.place(declinedOrder)
	s.reserve(declinedOrder)
	s.decline(declinedOrder)
	s.release(declinedOrder)
	s.end(declinedOrder, "cancelled", saga.Compensated, orderCancelled)

	s.place(carrierOrder)
	s.reserve(carrierOrder)
	s.charge(carrierOrder)
	s.void(carrierOrder)
	s.release(carrierOrder)
	s.end(carrierOrder, "cancelled", saga.Compensated, orderCancelled)

	s.outOfStock(stockOrder)
	s.answer(refusedOrder, "order", 503)
}

// healthyDir makes a healthy scene and closes it, so that its files can be copied.
func healthyDir(t *testing.T) string {
	dir := t.TempDir()
	require.True(t, t.Run("healthy", func(t *testing.T) { openScene(t, dir).healthy() }))
	return dir
}

// copyScene opens a copy of the databases in dir.
func copyScene(t *testing.T, dir string) *scene {
	to := t.TempDir()
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
	return openScene(t, to)
}
