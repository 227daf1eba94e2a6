package main

import (
	"context"
	"time"
)

type request struct {
	SKU string `json:"sku"`
}

type price struct {
	SKU   string `json:"sku"`
	Pence int    `json:"pence"`
}

// errUnknown says by Permanent that asking again does not help. The caller is told.
type errUnknown struct{ sku string }

func (e errUnknown) Error() string   { return "no product " + e.sku }
func (e errUnknown) Permanent() bool { return true }

// lookUp is the function of the server. Its context ends when the caller no longer waits.
func lookUp(ctx context.Context, r request) (price, error) {
	switch r.SKU {
	case "unicorn":
		return price{}, errUnknown{r.SKU}
	case "slow":
		<-ctx.Done()
		time.Sleep(20 * time.Millisecond) // by now the caller has left
		return price{}, ctx.Err()
	}
	return price{r.SKU, 100 * len(r.SKU)}, nil
}
