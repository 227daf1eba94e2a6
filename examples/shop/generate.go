package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
)

// generate makes an assortment that depends on its arguments alone: about forty products of which a few are in demand by
// most, orders of one to four lines, a few cancellations, and too little of three products, so that about three orders in a
// hundred find no stock.
func generate(seed uint64, orders int) assortment {
	g := generator{seed: seed, rng: rand.New(rand.NewPCG(seed, 0x73686f70))}
	g.products()
	for range orders {
		g.order()
		if len(g.orders) > 8 && g.rng.IntN(20) == 0 {
			g.cancel()
		}
	}
	g.stock()
	return g.made
}

type generator struct {
	seed    uint64
	rng     *rand.Rand
	made    assortment
	weights []float64 // popularity, running sums
	orders  []*order
	cancels map[string]bool // ids of orders that have a cancellation
}

func (g *generator) products() {
	colours := []string{"Red", "Blue", "Ivory", "Green", "Antique", "Vintage", "Woodland", "Retrospot"}
	things := []string{"Tea Towel", "Lantern", "Cake Tin", "Lunch Box", "Doormat"}
	sum := 0.0
	for _, thing := range things {
		for _, colour := range colours {
			rank := len(g.made.Products) + 1
			g.made.Products = append(g.made.Products, product{
				SKU:        fmt.Sprintf("P%03d", rank),
				Name:       colour + " " + thing,
				PricePence: 95 + 5*g.rng.IntN(400),
			})
			sum += 1 / float64(rank+2)
			g.weights = append(g.weights, sum)
		}
	}
	g.cancels = map[string]bool{}
}

func (g *generator) pick() product {
	at := g.rng.Float64() * g.weights[len(g.weights)-1]
	i, _ := slices.BinarySearch(g.weights, at)
	return g.made.Products[min(i, len(g.made.Products)-1)]
}

func (g *generator) order() {
	countries := []string{"United Kingdom", "United Kingdom", "United Kingdom", "Germany", "France", "EIRE"}
	o := &order{
		ID:       fmt.Sprintf("g%d-%06d", g.seed, len(g.orders)+1),
		Customer: fmt.Sprintf("%05d", 12000+g.rng.IntN(500)),
		Country:  countries[g.rng.IntN(len(countries))],
	}
	for range 1 + g.rng.IntN(4) {
		p := g.pick()
		if slices.ContainsFunc(o.Lines, func(l line) bool { return l.SKU == p.SKU }) {
			continue
		}
		o.Lines = append(o.Lines, line{SKU: p.SKU, Qty: 1 + g.rng.IntN(6), PricePence: p.PricePence})
	}
	g.orders = append(g.orders, o)
	g.made.Requests = append(g.made.Requests, request{Order: o})
}

// cancel takes back a recent order, in two cases of five the whole of it, else one line or a part of one.
func (g *generator) cancel() {
	recent := g.orders[max(0, len(g.orders)-50) : len(g.orders)-5]
	o := recent[g.rng.IntN(len(recent))]
	if g.cancels[o.ID] {
		return
	}
	lines := slices.Clone(o.Lines)
	if g.rng.IntN(5) >= 2 {
		l := lines[g.rng.IntN(len(lines))]
		l.Qty = 1 + g.rng.IntN(l.Qty)
		lines = []line{l}
	}
	g.cancels[o.ID] = true
	g.made.Requests = append(g.made.Requests, request{Cancel: &cancellation{
		ID:      fmt.Sprintf("c%d-%06d", g.seed, len(g.cancels)),
		OrderID: o.ID,
		Lines:   lines,
	}})
}

// stock gives every product more than is asked for, and then takes from three of the less popular ones, a fiftieth at a
// time, until three orders in a hundred fail.
func (g *generator) stock() {
	asked := demand(g.made.Requests)
	stock := map[string]int{}
	for _, p := range g.made.Products {
		stock[p.SKU] = asked[p.SKU] + 5 + g.rng.IntN(20)
	}
	scarce := g.scarce(asked)
	goal := (3*len(g.orders) + 50) / 100
	for round := range 50 * len(scarce) {
		if failed, _ := shortages(g.made.Requests, stock); failed >= goal {
			break
		}
		sku := scarce[round%len(scarce)].SKU
		stock[sku] = max(0, min(stock[sku], asked[sku])-(asked[sku]+49)/50)
	}
	for i, p := range g.made.Products {
		g.made.Products[i].Stock = stock[p.SKU]
	}
}

// scarce are the three products of the catalogue's middle that are asked for most: together they are in enough orders.
func (g *generator) scarce(asked map[string]int) []product {
	middle := slices.Clone(g.made.Products[5:20])
	slices.SortStableFunc(middle, func(a, b product) int { return cmp.Compare(asked[b.SKU], asked[a.SKU]) })
	return middle[:3]
}
