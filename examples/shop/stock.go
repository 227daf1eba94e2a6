package main

import "maps"

// demand is what all orders together ask for, by sku.
func demand(requests []request) map[string]int {
	asked := map[string]int{}
	for _, r := range requests {
		if r.Order == nil {
			continue
		}
		for _, l := range r.Order.Lines {
			asked[l.SKU] += l.Qty
		}
	}
	return asked
}

// shortages serves the orders one after the other from stock, each whole or not at all, and says how many fail and which
// sku was the one that ran out. The shop serves them a little out of order, so this is close, not exact.
func shortages(requests []request, stock map[string]int) (failed int, blame map[string]int) {
	left, blame := maps.Clone(stock), map[string]int{}
	for _, r := range requests {
		if r.Order == nil {
			continue
		}
		if sku := takeAll(left, r.Order.Lines); sku != "" {
			failed++
			blame[sku]++
		}
	}
	return failed, blame
}

// takeAll takes all lines from left, or none of them and names the sku that is short.
func takeAll(left map[string]int, lines []line) (short string) {
	for i, l := range lines {
		if left[l.SKU] < l.Qty {
			for _, taken := range lines[:i] {
				left[taken.SKU] += taken.Qty
			}
			return l.SKU
		}
		left[l.SKU] -= l.Qty
	}
	return ""
}

// scarcity is the stock for a replay: all that is asked for, except that about one sku in sixty has three fifths of it, so
// that some reservations fail. The skus that fail most get their full stock back until nine orders in ten can be served.
func scarcity(requests []request) map[string]int {
	asked := demand(requests)
	stock := maps.Clone(asked)
	orders := 0
	for sku, n := range asked {
		if luck(0, "scarce", sku) < 1.0/60 {
			stock[sku] = max(1, n*3/5)
		}
	}
	for _, r := range requests {
		if r.Order != nil {
			orders++
		}
	}
	for {
		failed, blame := shortages(requests, stock)
		if failed*10 <= orders {
			return stock
		}
		worst, most := "", 0
		for sku, n := range blame {
			if n > most || n == most && sku < worst {
				worst, most = sku, n
			}
		}
		stock[worst] = asked[worst]
	}
}
