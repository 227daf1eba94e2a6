package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/cache"
	"github.com/backstay-go/backstay/console"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// gateway is the shop's front door. It looks at what comes in before it passes it on, keeps a slow or broken service from
// taking the others down with it, and is the backend of the customer's screen: one reply for what three services know.
type gateway struct {
	orders, inventory, payments, shipping *peer

	catalogue *catalogue

	objects []console.Object // that there are to look at
	retries []*retry.Retrier // of requests to another instance
}

const (
	gatewayPatience = 5 * time.Second // with one service
	spreadPatience  = 8 * time.Second // with one of several instances, all attempts
	spreadAttempt   = 2 * time.Second
)

// guarded is a service behind the policies between the gateway and it. One of several instances may be gone: another one is
// asked, since every operation of the shop may be repeated.
func (g *gateway) guarded(service string, bases []string, client *http.Client) *peer {
	bound := bulkhead.New(bulkhead.Config{Name: service, MaxConcurrent: 64, MaxQueue: 512})
	if len(bases) == 1 {
		limit := timeout.New(timeout.Config{Name: service, After: gatewayPatience})
		fuse := breaker.New(breaker.Config{Name: service, OpenDelay: time.Second})
		g.objects = append(g.objects, fuse, bound, limit)
		return newPeer(service, bases[0], client, fuse, bound, limit)
	}
	limit := timeout.New(timeout.Config{Name: service, After: spreadPatience})
	// A service that says when to come back is left alone until then: the customer is told so.
	again := retry.New(retry.Config{Name: service, MaxAttempts: -1, InitialInterval: 50 * time.Millisecond, MaxInterval: 500 * time.Millisecond, MaxRetryAfter: 600 * time.Millisecond},
		retry.WithRetryable(func(err error) bool { return retry.Retryable(err) || errors.Is(err, breaker.ErrOpen) }))
	all := newSpread(service, bases, client, spreadAttempt, limit, again, bound)
	g.objects = append(g.objects, limit, again, bound)
	g.objects = append(g.objects, all.objects...)
	g.retries = append(g.retries, again)
	return all.peer
}

// newGateway takes the addresses of the instances by service. The caller closes its catalogue.
func newGateway(client *http.Client, base map[string][]string) *gateway {
	g := &gateway{}
	g.orders = g.guarded(topicOrders, base[topicOrders], client)
	g.inventory = g.guarded(topicInventory, base[topicInventory], client)
	g.payments = g.guarded(topicPayments, base[topicPayments], client)
	g.shipping = g.guarded(topicShipping, base[topicShipping], client)
	g.catalogue = newCatalogue(g.inventory)
	g.objects = append(g.objects, g.catalogue)
	return g
}

func (g *gateway) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /api/orders", endpoint(http.StatusAccepted, g.postOrder))
	mux.Handle("GET /api/orders/{id}", endpoint(http.StatusOK, g.getOrder))
	mux.Handle("POST /api/orders/{id}/cancellations", endpoint(http.StatusAccepted, g.postCancellation))
	mux.Handle("GET /api/products/{sku}", endpoint(http.StatusOK, g.getProduct))
	mux.Handle("GET /healthz", endpoint(http.StatusOK, func(*http.Request) (any, error) { return map[string]string{"status": "ok"}, nil }))
	return mux
}

func (g *gateway) getProduct(r *http.Request) (any, error) {
	sku := r.PathValue("sku")
	if err := checkID("product", sku); err != nil {
		return nil, err
	}
	return g.catalogue.page(r.Context(), sku)
}

func (g *gateway) postOrder(r *http.Request) (any, error) {
	in, err := read[order](r)
	if err != nil {
		return nil, err
	}
	for _, l := range in.Lines {
		if err := g.sold(r.Context(), l.SKU); err != nil {
			return nil, err
		}
	}
	var out accepted
	return &out, g.orders.call(r.Context(), http.MethodPost, "/orders", in, &out)
}

// sold says whether there is such a product.
func (g *gateway) sold(ctx context.Context, sku string) error {
	if err := checkID("product", sku); err != nil {
		return err
	}
	_, err := g.catalogue.Get(ctx, sku)
	if errors.Is(err, cache.ErrNotFound) {
		return refuse(http.StatusUnprocessableEntity, "no product %q", sku)
	}
	return err
}

func (g *gateway) postCancellation(r *http.Request) (any, error) {
	in, err := read[cancellation](r)
	if err != nil {
		return nil, err
	}
	id := r.PathValue("id")
	if err := checkID("order", id); err != nil {
		return nil, err
	}
	var out accepted
	return &out, g.orders.call(r.Context(), http.MethodPost, "/orders/"+id+"/cancellations", in, &out)
}

// An orderPage is what a customer sees of an order. A part that does not exist is null; one whose service did not answer
// is null and missing.
type orderPage struct {
	Order    json.RawMessage `json:"order"`
	Payment  json.RawMessage `json:"payment"`
	Shipment json.RawMessage `json:"shipment"`
	Missing  []string        `json:"missing"`
}

// getOrder asks three services at once, gives none of them long, and shows what it has got.
func (g *gateway) getOrder(r *http.Request) (any, error) {
	id := r.PathValue("id")
	if err := checkID("order", id); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	page := orderPage{Missing: []string{}}
	parts := []struct {
		name string
		from *peer
		path string
		into *json.RawMessage
		err  error
	}{
		{name: "order", from: g.orders, path: "/orders/", into: &page.Order},
		{name: "payment", from: g.payments, path: "/charges/", into: &page.Payment},
		{name: "shipment", from: g.shipping, path: "/shipments/", into: &page.Shipment},
	}
	var all sync.WaitGroup
	for i := range parts {
		all.Go(func() { parts[i].err = parts[i].from.call(ctx, http.MethodGet, parts[i].path+id, nil, parts[i].into) })
	}
	all.Wait()
	for _, part := range parts {
		no, refused := errors.AsType[*refusal](part.err)
		switch {
		case part.err == nil:
		case !refused || no.Code != http.StatusNotFound:
			page.Missing = append(page.Missing, part.name)
		case part.name == "order":
			return nil, no
		}
	}
	if page.Order == nil && page.Payment == nil && page.Shipment == nil {
		return nil, parts[0].err
	}
	return page, nil
}
