package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// testLedger is the ledger of one service whose relay never runs: what it publishes stays in the outbox.
func testLedger(t *testing.T, topic, schema string) ledger {
	t.Helper()
	db, err := sqlite.Open(filepath.Join(t.TempDir(), topic+".db"), sqlite.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.ExecContext(t.Context(), schema)
	require.NoError(t, err)
	store, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{})
	require.NoError(t, err)
	require.NoError(t, store.Migrate(t.Context()))
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	t.Cleanup(func() { require.NoError(t, bus.Close()) })
	return newLedger(db, onSQLite, topic, store, outbox.NewRelay(store, bus, outbox.RelayConfig{}))
}

// ask calls a handler and returns status and body.
func ask(t *testing.T, h http.Handler, method, path, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

// send is ask over the network.
func send(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

func count(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRowContext(t.Context(), query).Scan(&n))
	return n
}

func eventsOf(t *testing.T, db *sql.DB) (types []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT type FROM events ORDER BY rowid`)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var typ string
		require.NoError(t, rows.Scan(&typ))
		types = append(types, typ)
	}
	require.NoError(t, rows.Err())
	return types
}

func newInventory(t *testing.T, stock int) *inventory {
	t.Helper()
	i := &inventory{ledger: testLedger(t, topicInventory, inventorySchema), stocktaking: newAbsence(1, false)}
	require.NoError(t, i.stockProducts(t.Context(), []product{{SKU: "cup", Stock: stock}, {SKU: "pot", Stock: 1}}))
	return i
}

func TestAReservationTakesAllLinesOrNone(t *testing.T) {
	i := newInventory(t, 5)
	h := i.handler()
	code, body := ask(t, h, "PUT", "/reservations/a", `{"lines":[{"sku":"cup","qty":2},{"sku":"pot","qty":2}]}`)
	require.Equal(t, http.StatusConflict, code)
	require.Contains(t, body, "out of stock: pot")
	require.Equal(t, 5, count(t, i.db, `SELECT stock_left FROM products WHERE sku = 'cup'`))
	require.Empty(t, eventsOf(t, i.db))

	// The lines of one product add up.
	code, body = ask(t, h, "PUT", "/reservations/b", `{"lines":[{"sku":"cup","qty":3},{"sku":"cup","qty":3}]}`)
	require.Equal(t, http.StatusConflict, code)
	require.Contains(t, body, "out of stock: cup")
}

func TestInventoryRepeatsHaveOneEffect(t *testing.T) {
	i := newInventory(t, 5)
	h := i.handler()
	for range 2 {
		code, body := ask(t, h, "PUT", "/reservations/a", `{"lines":[{"sku":"cup","qty":3}]}`)
		require.Equal(t, http.StatusOK, code, body)
	}
	require.Equal(t, 2, count(t, i.db, `SELECT stock_left FROM products WHERE sku = 'cup'`))
	for range 2 {
		code, body := ask(t, h, "PUT", "/returns/c1", `{"order_id":"a","lines":[{"sku":"cup","qty":1}]}`)
		require.Equal(t, http.StatusOK, code, body)
	}
	require.Equal(t, 3, count(t, i.db, `SELECT stock_left FROM products WHERE sku = 'cup'`))
	code, _ := ask(t, h, "PUT", "/returns/c2", `{"order_id":"a","lines":[{"sku":"cup","qty":3}]}`)
	require.Equal(t, http.StatusConflict, code, "more than was reserved")
	for range 2 {
		code, body := ask(t, h, "DELETE", "/reservations/a", "")
		require.Equal(t, http.StatusOK, code, body)
	}
	require.Equal(t, 5, count(t, i.db, `SELECT stock_left FROM products WHERE sku = 'cup'`))
	require.Equal(t, []string{stockReserved, stockReturned, stockReleased}, eventsOf(t, i.db))
}

func TestALateCommandAfterItsUndoIsRefused(t *testing.T) {
	i := newInventory(t, 5)
	s := &shipping{ledger: testLedger(t, topicShipping, shippingSchema)}
	for _, c := range []struct {
		h    http.Handler
		path string
	}{{i.handler(), "/reservations/a"}, {s.handler(), "/shipments/a"}} {
		code, body := ask(t, c.h, "DELETE", c.path, "")
		require.Equal(t, http.StatusOK, code, body)
		code, _ = ask(t, c.h, "PUT", c.path, `{"lines":[{"sku":"cup","qty":1}]}`)
		require.Equal(t, http.StatusConflict, code)
	}
	require.Equal(t, 5, count(t, i.db, `SELECT stock_left FROM products WHERE sku = 'cup'`))
}

func TestTheLastReturnCancelsTheShipment(t *testing.T) {
	s := &shipping{ledger: testLedger(t, topicShipping, shippingSchema)}
	h := s.handler()
	code, body := ask(t, h, "PUT", "/shipments/a", `{"lines":[{"sku":"cup","qty":2}]}`)
	require.Equal(t, http.StatusOK, code, body)
	for id, want := range []string{"booked", "cancelled"} {
		code, body = ask(t, h, "PUT", "/returns/c"+string(rune('0'+id)), `{"order_id":"a","lines":[{"sku":"cup","qty":1}]}`)
		require.Equal(t, http.StatusOK, code, body)
		_, body = ask(t, h, "GET", "/shipments/a", "")
		require.Contains(t, body, want)
	}
	// The confirmation, which may come late, finds nothing to send.
	require.NoError(t, s.change(t.Context(), "o", func(tx *sql.Tx) error {
		return s.apply(t.Context(), tx, orderEvent(orderConfirmed, "a"))
	}))
	require.Equal(t, []string{shipmentBooked, shipmentReturned, shipmentCancelled}, eventsOf(t, s.db))
}

// newPayments is payments beside a bank that first answers with the given statuses and then behaves.
func newPayments(t *testing.T, first ...int) (*payments, *bank) {
	t.Helper()
	db, err := sqlite.Open(filepath.Join(t.TempDir(), "bank.db"), sqlite.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.ExecContext(t.Context(), bankSchema)
	require.NoError(t, err)
	b := newBank(db, onSQLite, newFaults(1, false))
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		code := 0
		if len(first) > 0 {
			code, first = first[0], first[1:]
		}
		mu.Unlock()
		if code == 0 {
			b.ServeHTTP(w, r)
			return
		}
		b.ServeHTTP(httptest.NewRecorder(), r) // the effect takes place, the answer is lost
		w.WriteHeader(code)
	}))
	t.Cleanup(server.Close)
	return &payments{ledger: testLedger(t, topicPayments, paymentsSchema), bank: newBankClient(server.URL, server.Client())}, b
}

func TestALostReplyChargesOnce(t *testing.T) {
	p, b := newPayments(t, 500, 500)
	h := p.handler()
	for range 2 {
		code, body := ask(t, h, "PUT", "/charges/a", `{"amount_pence":500}`)
		require.Equal(t, http.StatusOK, code, body)
	}
	require.Equal(t, 500, count(t, b.db, `SELECT sum(amount_pence) FROM charges`))
	require.Equal(t, int64(2), p.bank.retry.Stats().Retries)
	for range 2 {
		code, body := ask(t, h, "PUT", "/refunds/c1", `{"order_id":"a","amount_pence":200}`)
		require.Equal(t, http.StatusOK, code, body)
	}
	require.Equal(t, 200, count(t, b.db, `SELECT sum(amount_pence) FROM refunds`))
	require.Equal(t, []string{paymentCharged, paymentRefunded}, eventsOf(t, p.db))
}

func TestABankThatIsAwayDefersThePayment(t *testing.T) {
	p, b := newPayments(t, 500, 500, 500, 500)
	h := p.handler()
	code, body := ask(t, h, "PUT", "/charges/a", `{"amount_pence":500}`)
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, body, "deferred")
	require.Equal(t, int64(1), p.bank.fallback.Stats().Used)
	_, body = ask(t, h, "GET", "/charges/a", "")
	require.Contains(t, body, "pending")

	// Undone before it was known whether the money was taken: it comes back, and a late charge is refused.
	code, body = ask(t, h, "DELETE", "/charges/a", "")
	require.Equal(t, http.StatusOK, code, body)
	code, _ = ask(t, h, "PUT", "/charges/a", `{"amount_pence":500}`)
	require.Equal(t, http.StatusConflict, code)
	require.Equal(t, 0, count(t, b.db, `SELECT (SELECT sum(amount_pence) FROM charges) - (SELECT sum(amount_pence) FROM refunds)`))
	require.Equal(t, []string{paymentVoided}, eventsOf(t, p.db))
}

func TestWhatIsLeftAfterACancellation(t *testing.T) {
	lines := []line{{"cup", 3, 100}, {"pot", 1, 900}, {"cup", 2, 80}}
	for name, c := range map[string]struct {
		gone   []line
		left   []int
		amount int
		fails  bool
	}{
		"part of a line":      {gone: []line{{"cup", 2, 0}}, left: []int{1, 1, 2}, amount: 200},
		"across lines":        {gone: []line{{"cup", 4, 0}}, left: []int{0, 1, 1}, amount: 380},
		"by price":            {gone: []line{{"cup", 2, 80}}, left: []int{3, 1, 0}, amount: 160},
		"everything":          {gone: []line{{"cup", 5, 0}, {"pot", 1, 0}}, left: []int{0, 0, 0}, amount: 1360},
		"too many":            {gone: []line{{"cup", 6, 0}}, fails: true},
		"too many by price":   {gone: []line{{"cup", 3, 80}}, fails: true},
		"twice the same":      {gone: []line{{"pot", 1, 0}, {"pot", 1, 0}}, fails: true},
		"never ordered":       {gone: []line{{"jug", 1, 0}}, fails: true},
		"at an unheard price": {gone: []line{{"pot", 1, 1}}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			left, amount, err := without(lines, c.gone)
			if c.fails {
				require.ErrorContains(t, err, "more than was ordered")
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.amount, amount)
			for i, qty := range c.left {
				require.Equal(t, qty, left[i].Qty)
			}
			require.Equal(t, 3, lines[0].Qty, "the argument is not changed")
		})
	}
}

func TestTheGatewayRefusesWhatIsWrong(t *testing.T) {
	s, err := openShop(t.Context(), settings{data: t.TempDir(), addr: anyPort}, []product{{SKU: "cup", PricePence: 100, Stock: 10}}, io.Discard)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	fine := `{"id":"o1","customer":"me","country":"here","lines":[{"sku":"cup","qty":1,"price_pence":100}]}`
	for _, c := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"POST", "/api/orders", `{`, 400, "JSON"},
		{"POST", "/api/orders", fine + fine, 400, "goes on"},
		{"POST", "/api/orders", strings.Replace(fine, `"id"`, `"no":1,"id"`, 1), 400, "no"},
		{"POST", "/api/orders", strings.Replace(fine, "o1", "o 1", 1), 422, "o 1"},
		{"POST", "/api/orders", strings.Replace(fine, `"qty":1`, `"qty":0`, 1), 422, "qty is 0"},
		{"POST", "/api/orders", strings.Replace(fine, ":100", ":-1", 1), 422, "price_pence is -1"},
		{"POST", "/api/orders", strings.Replace(fine, "cup", "jug", 1), 422, "jug"},
		{"POST", "/api/orders", `{"id":"o1","lines":[]}`, 422, "lines"},
		{"POST", "/api/orders", `{"id":"` + strings.Repeat("x", maxBody) + `"}`, 413, "bytes"},
		{"POST", "/api/orders/none/cancellations", `{"id":"c1","order_id":"none","lines":[{"sku":"cup","qty":1}]}`, 404, "none"},
		{"POST", "/api/orders/none/cancellations", `{"id":"c1","order_id":"other","lines":[{"sku":"cup","qty":1}]}`, 422, "other"},
		{"GET", "/api/orders/none", "", 404, "none"},
		{"GET", "/api/products/none", "", 404, "none"},
		{"GET", "/api/products/cup", "", 200, `"price_pence":100`},
		{"GET", "/healthz", "", 200, "ok"},
	} {
		code, body := send(t, c.method, s.front.base+c.path, c.body)
		require.Equal(t, c.code, code, "%s %s %.80s: %s", c.method, c.path, c.body, body)
		require.Contains(t, body, c.says)
	}
}

func TestAnOrderGoesItsWay(t *testing.T) {
	s, err := openShop(t.Context(), settings{data: t.TempDir(), addr: anyPort}, []product{{SKU: "cup", PricePence: 100, Stock: 10}}, io.Discard)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	api := s.front.base + "/api/orders"
	page := func(id string) (p struct {
		Order    orderStatus
		Payment  *paymentStatus
		Shipment *shipmentStatus
		Missing  []string
	}) {
		code, body := send(t, "GET", api+"/"+id, "")
		require.Equal(t, 200, code, body)
		require.NoError(t, json.Unmarshal([]byte(body), &p))
		return p
	}
	settled := func() {
		t.Helper()
		require.Eventually(t, func() bool {
			n, err := s.underWay(t.Context())
			return err == nil && n == 0
		}, wait, tick)
	}

	for range 2 { // twice is once
		code, body := send(t, "POST", api, `{"id":"o1","customer":"me","country":"here","lines":[{"sku":"cup","qty":4,"price_pence":100}]}`)
		require.Equal(t, 202, code, body)
	}
	settled()
	p := page("o1")
	require.Equal(t, "confirmed", p.Order.Status)
	require.Equal(t, 400, p.Order.TotalPence)
	require.Equal(t, "charged", p.Payment.Status)
	require.Equal(t, "dispatched", p.Shipment.Status)
	require.Empty(t, p.Missing)

	cancel := func(id, qty string) int {
		code, _ := send(t, "POST", api+"/o1/cancellations", `{"id":"`+id+`","order_id":"o1","lines":[{"sku":"cup","qty":`+qty+`}]}`)
		return code
	}
	require.Equal(t, 202, cancel("c1", "1"))
	require.Equal(t, 202, cancel("c1", "1"), "twice is once")
	require.Equal(t, 409, cancel("c2", "4"), "only 3 are left")
	settled()
	p = page("o1")
	require.Equal(t, 300, p.Order.TotalPence)
	require.Equal(t, 100, p.Payment.RefundedPence)
	require.Equal(t, 3, p.Shipment.Units)

	require.Equal(t, 202, cancel("c3", "3"))
	settled()
	p = page("o1")
	require.Equal(t, "cancelled", p.Order.Status)
	require.Equal(t, 400, p.Payment.RefundedPence)
	require.Equal(t, 0, p.Shipment.Units)
	require.Equal(t, 409, cancel("c4", "1"), "nothing is left")

	// Out of stock: undone, and the customer is told why.
	code, body := send(t, "POST", api, `{"id":"o2","customer":"me","country":"here","lines":[{"sku":"cup","qty":11,"price_pence":100}]}`)
	require.Equal(t, 202, code, body)
	settled()
	p = page("o2")
	require.Equal(t, "cancelled", p.Order.Status)
	require.Equal(t, "out of stock: cup", p.Order.Reason)
	require.Nil(t, p.Payment)

	invariants, err := check(context.Background(), s.dbs)
	require.NoError(t, err)
	for _, i := range invariants {
		require.True(t, i.OK, "%s: %s", i.Name, i.Detail)
	}
}

func TestTheGatewayShowsWhatItHas(t *testing.T) {
	part := func(status int, body string) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.Copy(w, bytes.NewReader([]byte(body)))
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	transport := &http.Transport{DisableKeepAlives: true}
	up, none, down := part(200, `{"status":"fine"}`), part(404, `{"error":"none"}`), part(500, "")
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, c := range map[string]struct {
		orders, payments, shipping string
		code                       int
		page                       string
	}{
		"all":              {up, up, up, 200, `{"order":{"status":"fine"},"payment":{"status":"fine"},"shipment":{"status":"fine"},"missing":[]}`},
		"not yet paid":     {up, none, none, 200, `{"order":{"status":"fine"},"payment":null,"shipment":null,"missing":[]}`},
		"payments down":    {up, down, up, 200, `{"order":{"status":"fine"},"payment":null,"shipment":{"status":"fine"},"missing":["payment"]}`},
		"two gone":         {up, gone.URL, down, 200, `{"order":{"status":"fine"},"payment":null,"shipment":null,"missing":["payment","shipment"]}`},
		"orders down":      {down, up, up, 200, `{"order":null,"payment":{"status":"fine"},"shipment":{"status":"fine"},"missing":["order"]}`},
		"no such order":    {none, none, none, 404, `{"error":"none"}`},
		"nothing is there": {down, down, down, 503, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(&http.Client{Transport: transport}, map[string][]string{
				topicOrders: {c.orders}, topicInventory: {gone.URL}, topicPayments: {c.payments}, topicShipping: {c.shipping},
			})
			defer func() { require.NoError(t, g.catalogue.Close()) }()
			code, body := ask(t, g.handler(), "GET", "/api/orders/o1", "")
			require.Equal(t, c.code, code, body)
			if c.page != "" {
				require.JSONEq(t, c.page, body)
			}
		})
	}
}
