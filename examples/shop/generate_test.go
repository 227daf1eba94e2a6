package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkAssortment proves what the shop relies on: ids are used once, quantities and prices are above 0, products are known,
// and cancellations follow their orders and together take back no more than was ordered.
func checkAssortment(t *testing.T, a assortment) (orders, cancellations int) {
	t.Helper()
	// Plain conditions: the assertions of a test library take minutes over half a million lines.
	must := func(ok bool, what ...any) {
		t.Helper()
		if !ok {
			t.Fatal(what...)
		}
	}
	known := map[string]bool{}
	for _, p := range a.Products {
		must(p.SKU != "" && p.Name != "" && p.PricePence > 0 && p.Stock >= 0 && !known[p.SKU], "product", p)
		known[p.SKU] = true
	}
	left := map[string]map[line]int{} // by order, by line without its quantity
	ids := map[string]bool{}
	for i, r := range a.Requests {
		must((r.Order == nil) != (r.Cancel == nil), "request", i)
		if o := r.Order; o != nil {
			orders++
			must(!ids[o.ID] && len(o.Lines) > 0, "order", o)
			ids[o.ID], left[o.ID] = true, map[line]int{}
			for _, l := range o.Lines {
				must(known[l.SKU] && l.Qty > 0 && l.PricePence > 0, "order", o.ID, l)
				left[o.ID][line{SKU: l.SKU, PricePence: l.PricePence}] += l.Qty
			}
			continue
		}
		cancellations++
		c := r.Cancel
		must(!ids[c.ID] && ids[c.OrderID] && len(c.Lines) > 0, "cancellation", c)
		ids[c.ID] = true
		for _, l := range c.Lines {
			key := line{SKU: l.SKU, PricePence: l.PricePence}
			left[c.OrderID][key] -= l.Qty
			must(l.Qty > 0 && left[c.OrderID][key] >= 0, "cancellation", c.ID, l)
		}
	}
	return orders, cancellations
}

func stockOf(a assortment) map[string]int {
	stock := map[string]int{}
	for _, p := range a.Products {
		stock[p.SKU] = p.Stock
	}
	return stock
}

func TestGenerateDependsOnTheSeedAlone(t *testing.T) {
	first, again := generate(3, 200), generate(3, 200)
	require.Equal(t, first, again)
	require.NotEqual(t, generate(3, 200).Requests, generate(4, 200).Requests)
	require.Equal(t, "g3-000001", generate(3, 1).Requests[0].Order.ID)
}

func TestGenerateIsSound(t *testing.T) {
	for seed := range uint64(10) {
		for _, n := range []int{0, 1, 2, 3, 9, 10, 17, 50, 200, 2000} {
			t.Run(fmt.Sprintf("seed %d, %d orders", seed, n), func(t *testing.T) {
				a := generate(seed, n)
				orders, cancellations := checkAssortment(t, a)
				require.Equal(t, n, orders)
				require.Len(t, a.Products, 40)
				if n >= 200 {
					failed, _ := shortages(a.Requests, stockOf(a))
					require.True(t, failed*100 >= 2*n && failed*100 <= 4*n, "%d of %d find no stock", failed, n)
				}
				if n >= 2000 {
					require.True(t, cancellations*100 >= 3*n && cancellations*100 <= 7*n, "%d cancellations of %d orders", cancellations, n)
				}
			})
		}
	}
}

func TestGenerateHasFavourites(t *testing.T) {
	asked := demand(generate(1, 2000).Requests)
	require.Greater(t, asked["P001"], 4*asked["P040"])
	require.Positive(t, asked["P040"])
}

func TestTakeAllTakesAllOrNothing(t *testing.T) {
	left := map[string]int{"a": 5, "b": 2}
	require.Equal(t, "b", takeAll(left, []line{{SKU: "a", Qty: 3}, {SKU: "b", Qty: 1}, {SKU: "b", Qty: 2}}))
	require.Equal(t, map[string]int{"a": 5, "b": 2}, left)
	require.Empty(t, takeAll(left, []line{{SKU: "a", Qty: 5}, {SKU: "b", Qty: 1}}))
	require.Equal(t, map[string]int{"a": 0, "b": 1}, left)
}

func TestScarcityLeavesNineOrdersInTen(t *testing.T) {
	scarce := ""
	for i := 0; scarce == ""; i++ {
		if sku := fmt.Sprint(10000 + i); luck(0, "scarce", sku) < 1.0/60 {
			scarce = sku
		}
	}
	orders := func(n int) (requests []request) {
		for i := range 100 {
			sku := "plenty"
			if i < n {
				sku = scarce
			}
			requests = append(requests, request{Order: &order{ID: fmt.Sprint(i), Lines: []line{{SKU: sku, Qty: 1}}}})
		}
		return requests
	}
	require.Equal(t, map[string]int{scarce: 12, "plenty": 80}, scarcity(orders(20)), "eight fail")
	require.Equal(t, map[string]int{scarce: 30, "plenty": 70}, scarcity(orders(30)), "twelve would fail")
	require.Equal(t, map[string]int{scarce: 100}, scarcity(orders(100)), "forty would fail")
	require.Equal(t, map[string]int{scarce: 1, "plenty": 99}, scarcity(orders(1)))
}
