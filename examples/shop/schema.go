package main

// Each service owns one database and nobody else opens it while the shop runs; only the checker reads them all, at
// the end. Every service keeps the log of its committed events beside the outbox, because the outbox forgets a row
// once it is published.

const eventsSchema = `
CREATE TABLE IF NOT EXISTS events (
	id       TEXT PRIMARY KEY,
	type     TEXT NOT NULL,
	order_id TEXT NOT NULL
);`

// appliedSchema counts effects: the row is written in the transaction of the effect, and nothing makes it unique, so
// that an effect which happened twice shows.
const appliedSchema = `
CREATE TABLE IF NOT EXISTS applied (
	event_id TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS applied_event ON applied (event_id);`

// status: pending, confirmed, cancelled. total_pence and qty are what is left after partial cancellations; a
// cancelled order keeps its lines and total as ordered, and they count for nothing.
const ordersSchema = eventsSchema + `
CREATE TABLE IF NOT EXISTS orders (
	id          TEXT PRIMARY KEY,
	customer    TEXT NOT NULL,
	country     TEXT NOT NULL,
	status      TEXT NOT NULL,
	total_pence BIGINT NOT NULL,
	reason      TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS order_lines (
	order_id    TEXT NOT NULL,
	line        BIGINT NOT NULL,
	sku         TEXT NOT NULL,
	qty         BIGINT NOT NULL,
	price_pence BIGINT NOT NULL,
	PRIMARY KEY (order_id, line)
);
CREATE TABLE IF NOT EXISTS cancellations (
	id           TEXT PRIMARY KEY,
	order_id     TEXT NOT NULL,
	status       TEXT NOT NULL, -- pending, done
	amount_pence BIGINT NOT NULL
);`

// reservations.status: reserved, released. A release that comes before its reservation leaves a released row, so that
// the late reservation is refused.
const inventorySchema = eventsSchema + `
CREATE TABLE IF NOT EXISTS products (
	sku         TEXT PRIMARY KEY,
	name        TEXT NOT NULL,
	price_pence BIGINT NOT NULL,
	stock_start BIGINT NOT NULL,
	stock_left  BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS reservations (
	order_id TEXT PRIMARY KEY,
	status   TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS reservation_lines (
	order_id TEXT NOT NULL,
	sku      TEXT NOT NULL,
	qty      BIGINT NOT NULL,
	PRIMARY KEY (order_id, sku)
);
CREATE TABLE IF NOT EXISTS returns (
	id       TEXT PRIMARY KEY, -- the cancellation's id
	order_id TEXT NOT NULL
);`

// payments.status: pending, charged, declined, voided. refunds are partial refunds for cancellations.
const paymentsSchema = eventsSchema + `
CREATE TABLE IF NOT EXISTS payments (
	order_id     TEXT PRIMARY KEY,
	status       TEXT NOT NULL,
	amount_pence BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS refunds (
	id           TEXT PRIMARY KEY, -- the cancellation's id
	order_id     TEXT NOT NULL,
	amount_pence BIGINT NOT NULL
);`

// shipments.status: booked, dispatched, cancelled. qty is what stays with the customer after returns.
const shippingSchema = eventsSchema + appliedSchema + `
CREATE TABLE IF NOT EXISTS shipments (
	order_id TEXT PRIMARY KEY,
	status   TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS shipment_lines (
	order_id TEXT NOT NULL,
	sku      TEXT NOT NULL,
	qty      BIGINT NOT NULL,
	PRIMARY KEY (order_id, sku)
);
CREATE TABLE IF NOT EXISTS returns (
	id       TEXT PRIMARY KEY, -- the cancellation's id
	order_id TEXT NOT NULL
);`

// The read model, fed by events alone.
const viewsSchema = appliedSchema + `
CREATE TABLE IF NOT EXISTS order_view (
	order_id    TEXT PRIMARY KEY,
	status      TEXT NOT NULL DEFAULT '',
	total_pence BIGINT NOT NULL DEFAULT 0,
	stock       TEXT NOT NULL DEFAULT '',
	payment     TEXT NOT NULL DEFAULT '',
	shipment    TEXT NOT NULL DEFAULT ''
);`

// The bank's books. outcome: charged, declined, voided (voided before it was charged: a late charge is refused).
// lost_replies counts the requests for this row whose effect took place although the answer was cut.
const bankSchema = `
CREATE TABLE IF NOT EXISTS charges (
	key          TEXT PRIMARY KEY,
	order_id     TEXT NOT NULL,
	amount_pence BIGINT NOT NULL,
	outcome      TEXT NOT NULL,
	lost_replies BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS refunds (
	key          TEXT PRIMARY KEY,
	order_id     TEXT NOT NULL,
	amount_pence BIGINT NOT NULL,
	lost_replies BIGINT NOT NULL DEFAULT 0
);`

// What the customers were told: one row for each order or cancellation that was answered.
const clientSchema = `
CREATE TABLE IF NOT EXISTS answers (
	id     TEXT PRIMARY KEY,
	kind   TEXT NOT NULL, -- order, cancellation
	code   BIGINT NOT NULL,
	reason TEXT NOT NULL DEFAULT ''
);`
