package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/backstay-go/backstay/cache"
)

// A catalogue is what the gateway remembers of the inventory service: products that are asked for are loaded again before they
// are too old, the old ones are shown while the service is away, and what is not sold is not asked for again and again.
type catalogue struct {
	*cache.Cache[string, product]
}

func newCatalogue(inventory *peer) *catalogue {
	load := func(ctx context.Context, sku string) (p product, err error) {
		err = inventory.call(ctx, http.MethodGet, "/products/"+sku, nil, &p)
		return p, err
	}
	return &catalogue{cache.New(load, cache.Config{
		Name:         "catalogue",
		TTL:          time.Second, // the page shows the stock
		RefreshAhead: 300 * time.Millisecond,
		StaleIfError: time.Minute,
		NegativeTTL:  5 * time.Second,
		LoadTimeout:  5 * time.Second,
	}, cache.WithNotFound(isNotFound))}
}

func isNotFound(err error) bool {
	no, ok := errors.AsType[*refusal](err)
	return ok && no.Code == http.StatusNotFound
}

// A productPage is what a customer sees of a product.
type productPage struct {
	product
	Stale bool `json:"stale,omitempty"` // the inventory service is away, and this is what it said last
}

func (c *catalogue) page(ctx context.Context, sku string) (any, error) {
	r, err := c.Lookup(ctx, sku)
	if errors.Is(err, cache.ErrNotFound) {
		return nil, refuse(http.StatusNotFound, "no product %q", sku)
	}
	return productPage{product: r.Value, Stale: r.Stale}, err
}
