package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// The databases of a run, one for each service, the bank's and the customers'. Nobody writes to them any more when the
// checker reads them.
type databases struct {
	orders, inventory, payments, shipping, views, bank, client *sql.DB
}

// The books are what the databases say, read once, so that the invariants are comparisons and nothing else.
type books struct {
	answers       map[string]answerEntry
	orders        map[string]orderEntry
	ordered       map[orderItem]int // what is left of the orders after cancellations
	cancellations map[string]string // status

	products     map[string]productEntry
	reservations dealings
	payments     dealings
	shipments    dealings
	shipped      map[orderItem]int // what the shipments hold after returns

	charges map[string]chargeEntry // at the bank, by order
	refunds map[string]int         // pence at the bank, by order

	events  map[string]map[string]int // by service, and by event how often it was committed
	applied map[string]map[string]int // by consumer, and by event how often it was applied
	waiting map[string]outboxEntry    // by service
	sagas   map[string]string         // status
	views   map[string]viewEntry
}

type answerEntry struct {
	kind string
	code int
}

func (a answerEntry) accepted() bool { return a.code >= 200 && a.code < 300 }

type orderEntry struct {
	status string
	pence  int
}

func (o orderEntry) confirmed() bool { return o.status == "confirmed" }

// worth is what the customer has to have paid in the end.
func (o orderEntry) worth() int {
	if o.confirmed() {
		return o.pence
	}
	return 0
}

type orderItem struct{ order, sku string }

type productEntry struct{ start, left int }

type chargeEntry struct{ times, pence int }

// Parked messages are pending too.
type outboxEntry struct{ pending, parked int }

type viewEntry struct {
	status                   string
	pence                    int
	stock, payment, shipment string
}

// Dealings are what one service did for each order, and how often it told the others of it.
type dealings struct {
	status map[string]string
	told   map[string]int
}

// word is what the others can know: nothing, of an order of which the service never told.
func (d dealings) word(order string) string {
	if d.told[order] == 0 {
		return ""
	}
	return d.status[order]
}

// services are those that publish, by topic.
func (d databases) services() map[string]*sql.DB {
	return map[string]*sql.DB{
		topicOrders: d.orders, topicInventory: d.inventory, topicPayments: d.payments, topicShipping: d.shipping,
	}
}

// consumers are those that apply events.
func (d databases) consumers() map[string]*sql.DB {
	return map[string]*sql.DB{"views": d.views, topicShipping: d.shipping}
}

func readBooks(ctx context.Context, dbs databases) (*books, error) {
	var b books
	err := errors.Join(
		b.readOrders(ctx, dbs),
		b.readGoods(ctx, dbs),
		b.readMoney(ctx, dbs),
		b.readEvents(ctx, dbs),
	)
	if err != nil {
		return nil, fmt.Errorf("reading the databases: %w", err)
	}
	return &b, nil
}

func (b *books) readOrders(ctx context.Context, dbs databases) error {
	return errors.Join(
		readRows(ctx, dbs.client, &b.answers, `SELECT id, kind, code FROM answers`,
			func(id *string, a *answerEntry) []any { return []any{id, &a.kind, &a.code} }),
		readRows(ctx, dbs.orders, &b.orders, `SELECT id, status, total_pence FROM orders`,
			func(id *string, o *orderEntry) []any { return []any{id, &o.status, &o.pence} }),
		readRows(ctx, dbs.orders, &b.ordered, `SELECT order_id, sku, sum(qty) FROM order_lines GROUP BY order_id, sku`, itemColumns),
		readPairs(ctx, dbs.orders, &b.cancellations, `SELECT id, status FROM cancellations`),
		readPairs(ctx, dbs.orders, &b.sagas, sagaQuery),
		readRows(ctx, dbs.views, &b.views, `SELECT order_id, status, total_pence, stock, payment, shipment FROM order_view`,
			func(id *string, v *viewEntry) []any {
				return []any{id, &v.status, &v.pence, &v.stock, &v.payment, &v.shipment}
			}),
	)
}

func (b *books) readGoods(ctx context.Context, dbs databases) error {
	return errors.Join(
		readRows(ctx, dbs.inventory, &b.products, `SELECT sku, stock_start, stock_left FROM products`,
			func(sku *string, p *productEntry) []any { return []any{sku, &p.start, &p.left} }),
		b.reservations.read(ctx, dbs.inventory, "reservations"),
		b.shipments.read(ctx, dbs.shipping, "shipments"),
		readRows(ctx, dbs.shipping, &b.shipped, `SELECT order_id, sku, qty FROM shipment_lines`, itemColumns),
	)
}

func (b *books) readMoney(ctx context.Context, dbs databases) error {
	return errors.Join(
		b.payments.read(ctx, dbs.payments, "payments"),
		readRows(ctx, dbs.bank, &b.charges,
			`SELECT order_id, count(*), sum(amount_pence) FROM charges WHERE outcome = 'charged' GROUP BY order_id`,
			func(id *string, c *chargeEntry) []any { return []any{id, &c.times, &c.pence} }),
		readPairs(ctx, dbs.bank, &b.refunds, `SELECT order_id, sum(amount_pence) FROM refunds GROUP BY order_id`),
	)
}

func (b *books) readEvents(ctx context.Context, dbs databases) error {
	b.events, b.applied, b.waiting = map[string]map[string]int{}, map[string]map[string]int{}, map[string]outboxEntry{}
	var errs []error
	for name, db := range dbs.services() {
		var events map[string]int
		var waiting outboxEntry
		errs = append(errs,
			readPairs(ctx, db, &events, `SELECT id, 1 FROM events`),
			db.QueryRowContext(ctx, outboxQuery).Scan(&waiting.pending, &waiting.parked))
		b.events[name], b.waiting[name] = events, waiting
	}
	for name, db := range dbs.consumers() {
		var applied map[string]int
		errs = append(errs, readPairs(ctx, db, &applied, `SELECT event_id, count(*) FROM applied GROUP BY event_id`))
		b.applied[name] = applied
	}
	return errors.Join(errs...)
}

// The tables of the library's outbox and saga stores are read without the library, which is not asked about itself.
const (
	outboxQuery = `SELECT (SELECT count(*) FROM backstay_outbox),
		(SELECT count(*) FROM backstay_outbox_holds WHERE parked_at IS NOT NULL)`
	sagaQuery = `SELECT id, status FROM backstay_sagas`
)

func (d *dealings) read(ctx context.Context, db *sql.DB, table string) error {
	return errors.Join(
		readPairs(ctx, db, &d.status, `SELECT order_id, status FROM `+table),
		readPairs(ctx, db, &d.told, `SELECT order_id, count(*) FROM events GROUP BY order_id`),
	)
}

func itemColumns(i *orderItem, qty *int) []any { return []any{&i.order, &i.sku, qty} }

// readPairs fills m from a query with two columns, a key and its value.
func readPairs[V any](ctx context.Context, db *sql.DB, m *map[string]V, query string) error {
	return readRows(ctx, db, m, query, func(key *string, value *V) []any { return []any{key, value} })
}

// readRows fills m with one entry for each row of query; columns says where a row goes.
func readRows[K comparable, V any](ctx context.Context, db *sql.DB, m *map[K]V, query string, columns func(*K, *V) []any) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	defer func() { _ = rows.Close() }()
	*m = map[K]V{}
	for rows.Next() {
		var key K
		var value V
		if err := rows.Scan(columns(&key, &value)...); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
		(*m)[key] = value
	}
	return rows.Err()
}
