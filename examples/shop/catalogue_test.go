package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// shelves is an inventory service that knows one product and counts how often it is asked.
type shelves struct {
	asked atomic.Int64
	down  atomic.Bool
}

func (s *shelves) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	switch {
	case s.down.Load():
		reply(w, http.StatusServiceUnavailable, map[string]string{"error": "stocktaking"})
	case strings.HasSuffix(r.URL.Path, "/cup"):
		reply(w, http.StatusOK, product{SKU: "cup", Name: "Cup", PricePence: 100, Stock: 7})
	default:
		reply(w, http.StatusNotFound, map[string]string{"error": "none"})
	}
}

func gatewayBefore(t *testing.T, inventory http.Handler) *gateway {
	t.Helper()
	srv := httptest.NewServer(inventory)
	t.Cleanup(srv.Close)
	g := newGateway(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, map[string][]string{
		topicOrders: {""}, topicInventory: {srv.URL}, topicPayments: {""}, topicShipping: {""},
	})
	t.Cleanup(func() { require.NoError(t, g.catalogue.Close()) })
	return g
}

func TestTheCatalogueShowsWhatItKnewWhileInventoryIsAway(t *testing.T) {
	inventory := &shelves{}
	g := gatewayBefore(t, inventory)
	const page = `{"sku":"cup","name":"Cup","price_pence":100,"stock":7}`
	code, body := ask(t, g.handler(), "GET", "/api/products/cup", "")
	require.Equal(t, 200, code)
	require.JSONEq(t, page, body)

	inventory.down.Store(true)
	stale := strings.TrimSuffix(page, "}") + `,"stale":true}`
	require.Eventually(t, func() bool {
		code, body = ask(t, g.handler(), "GET", "/api/products/cup", "")
		require.Equal(t, 200, code)
		return strings.TrimSpace(body) == stale
	}, wait, tick)
	code, _ = ask(t, g.handler(), "GET", "/api/products/mug", "")
	require.Equal(t, 503, code, "there is nothing to show")

	inventory.down.Store(false)
	require.Eventually(t, func() bool {
		_, body = ask(t, g.handler(), "GET", "/api/products/cup", "")
		return strings.TrimSpace(body) == page
	}, wait, tick)
}

func TestTheCatalogueRemembersWhatIsNotSold(t *testing.T) {
	inventory := &shelves{}
	g := gatewayBefore(t, inventory)
	for range 3 {
		code, body := ask(t, g.handler(), "GET", "/api/products/mug", "")
		require.Equal(t, 404, code)
		require.JSONEq(t, `{"error":"no product \"mug\""}`, body)
		code, body = ask(t, g.handler(), "POST", "/api/orders", `{"id":"o1","lines":[{"sku":"mug","qty":1}]}`)
		require.Equal(t, 422, code)
		require.JSONEq(t, `{"error":"no product \"mug\""}`, body)
	}
	require.EqualValues(t, 1, inventory.asked.Load())
}
