package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
)

// inventory keeps the stock. A reservation takes all of its lines or none, and takes them at once: what is left is what
// the next order can have.
type inventory struct {
	ledger
	stocktaking *absence // refuses look-ups; reservations are always answered
}

// stockProducts puts products on the shelves. Those that are there stay as they are: a shop that starts again goes on
// with the stock it had.
func (i *inventory) stockProducts(ctx context.Context, products []product) error {
	if len(products) == 0 {
		return nil
	}
	all, err := json.Marshal(products)
	if err != nil {
		return err
	}
	_, err = i.db.ExecContext(ctx, `INSERT INTO products (sku, name, price_pence, stock_start, stock_left)
		SELECT value->>'sku', value->>'name', CAST(value->>'price_pence' AS BIGINT), CAST(value->>'stock' AS BIGINT), CAST(value->>'stock' AS BIGINT)
		FROM `+i.dialect.elements+` WHERE true ON CONFLICT DO NOTHING`, string(all))
	return err
}

func (i *inventory) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /products/{sku}", endpoint(http.StatusOK, i.getProduct))
	mux.Handle("PUT /reservations/{order}", endpoint(http.StatusOK, i.reserve))
	mux.Handle("DELETE /reservations/{order}", endpoint(http.StatusOK, i.release))
	mux.Handle("PUT /returns/{id}", endpoint(http.StatusOK, i.takeBack))
	return mux
}

func (i *inventory) getProduct(r *http.Request) (any, error) {
	if i.stocktaking.away() {
		return nil, &refusal{Code: http.StatusServiceUnavailable, Reason: "stocktaking", Wait: retryLater}
	}
	p := product{SKU: r.PathValue("sku")}
	err := i.db.QueryRowContext(r.Context(), `SELECT name, price_pence, stock_left FROM products WHERE sku = $1`, p.SKU).
		Scan(&p.Name, &p.PricePence, &p.Stock)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refuse(http.StatusNotFound, "no product %q", p.SKU)
	}
	return p, err
}

func (i *inventory) reserve(r *http.Request) (any, error) {
	in, err := read[lineList](r)
	if err != nil {
		return nil, err
	}
	ctx, id := r.Context(), r.PathValue("order")
	goods := i.goodsOf(in.Lines)
	return nil, i.change(ctx, id, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `INSERT INTO reservations (order_id, status) VALUES ($1, 'reserved') ON CONFLICT DO NOTHING`, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return i.repeated(ctx, tx, id)
		}
		if err := i.dialect.lockProducts(ctx, tx, goods); err != nil {
			return err
		}
		if err := i.inStock(ctx, tx, goods); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, goods.with(`UPDATE products SET stock_left = stock_left - goods.qty
			FROM goods WHERE products.sku = goods.sku`), goods.json); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, goods.with(`INSERT INTO reservation_lines (order_id, sku, qty)
			SELECT $2, sku, qty FROM goods`), goods.json, id); err != nil {
			return err
		}
		return i.publish(ctx, tx, orderEvent(stockReserved, id))
	})
}

// repeated answers a reservation that was decided before.
func (i *inventory) repeated(ctx context.Context, tx *sql.Tx, id string) error {
	var status string
	if err := tx.QueryRowContext(ctx, `SELECT status FROM reservations WHERE order_id = $1`, id).Scan(&status); err != nil {
		return err
	}
	if status != "reserved" {
		return refuse(http.StatusConflict, "the reservation is %s", status)
	}
	return nil
}

func (i *inventory) inStock(ctx context.Context, tx *sql.Tx, goods goods) error {
	var short string
	err := tx.QueryRowContext(ctx, goods.with(`SELECT goods.sku FROM goods LEFT JOIN products ON products.sku = goods.sku
		WHERE coalesce(stock_left, 0) < goods.qty ORDER BY 1 LIMIT 1`), goods.json).Scan(&short)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	default:
		return refuse(http.StatusConflict, "out of stock: %s", short)
	}
}

// release puts everything back. When it comes first it leaves its mark, so that a late reservation is refused.
func (i *inventory) release(r *http.Request) (any, error) {
	ctx, id := r.Context(), r.PathValue("order")
	return nil, i.change(ctx, id, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `INSERT INTO reservations (order_id, status) VALUES ($1, 'released')
			ON CONFLICT (order_id) DO UPDATE SET status = 'released' WHERE reservations.status = 'reserved'`, id)
		if err != nil || n == 0 {
			return err
		}
		if err := i.dialect.lockReserved(ctx, tx, id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE products SET stock_left = stock_left + l.qty
			FROM reservation_lines l WHERE l.order_id = $1 AND products.sku = l.sku`, id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE reservation_lines SET qty = 0 WHERE order_id = $1`, id); err != nil {
			return err
		}
		return i.publish(ctx, tx, orderEvent(stockReleased, id))
	})
}

// takeBack puts some lines back, for a cancellation. With the last unit the reservation is released.
func (i *inventory) takeBack(r *http.Request) (any, error) {
	in, err := read[goodsReturn](r)
	if err != nil {
		return nil, err
	}
	ctx, id := r.Context(), r.PathValue("id")
	goods := i.goodsOf(in.Lines)
	return nil, i.change(ctx, in.OrderID, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `INSERT INTO returns (id, order_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, id, in.OrderID)
		if err != nil || n == 0 {
			return err
		}
		n, err = changed(ctx, tx, goods.with(`UPDATE reservation_lines SET qty = reservation_lines.qty - goods.qty FROM goods
			WHERE order_id = $2 AND reservation_lines.sku = goods.sku AND reservation_lines.qty >= goods.qty`), goods.json, in.OrderID)
		if err != nil {
			return err
		}
		if n < goods.kinds {
			return refuse(http.StatusConflict, "more than was reserved for %s", in.OrderID)
		}
		if err := i.dialect.lockProducts(ctx, tx, goods); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, goods.with(`UPDATE products SET stock_left = stock_left + goods.qty
			FROM goods WHERE products.sku = goods.sku`), goods.json); err != nil {
			return err
		}
		n, err = changed(ctx, tx, `UPDATE reservations SET status = 'released' WHERE order_id = $1
			AND NOT EXISTS (SELECT 1 FROM reservation_lines WHERE order_id = $1 AND qty > 0)`, in.OrderID)
		if err != nil {
			return err
		}
		typ := stockReturned
		if n > 0 {
			typ = stockReleased
		}
		return i.publish(ctx, tx, cancellationEvent(typ, in.OrderID, id))
	})
}

// goods are quantities by sku, in a form that a statement can join with.
type goods struct {
	json  string
	kinds int
	table string // reads json
}

func (l ledger) goodsOf(lines []line) goods {
	bySKU := map[string]int{}
	for _, l := range lines {
		bySKU[l.SKU] += l.Qty
	}
	text, _ := json.Marshal(bySKU) // strings and numbers always encode
	return goods{json: string(text), kinds: len(bySKU), table: l.dialect.members}
}

// with makes goods a table of the statement, whose first parameter is then goods.json.
func (g goods) with(statement string) string {
	return `WITH goods AS (SELECT key AS sku, CAST(value AS BIGINT) AS qty FROM ` + g.table + `) ` + statement
}
