package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// An invariant is one thing that must be true after a run, whatever went wrong during it.
type invariant struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// The invariants' names, in the order in which they are checked.
const (
	ordersSettled   = "accepted orders are settled"
	moneyAgrees     = "money agrees to the penny"
	stockAgrees     = "stock agrees"
	effectsOnce     = "every event has one effect"
	outboxesEmpty   = "outboxes are empty"
	sagasEnded      = "sagas have ended"
	readModelAgrees = "read model equals the orders"
	enoughAccepted  = "at least 95 % accepted"
	enoughConfirmed = "at least 60 % confirmed"
)

// check reads the databases of a run that has come to rest and says which invariants hold. Its error means that a
// database could not be read, and nothing about the invariants.
func check(ctx context.Context, dbs databases) ([]invariant, error) {
	b, err := readBooks(ctx, dbs)
	if err != nil {
		return nil, err
	}
	return []invariant{
		b.checkSettled(),
		b.checkMoney(),
		b.checkStock(),
		b.checkEffects(),
		b.checkOutboxes(),
		b.checkSagas(),
		b.checkReadModel(),
		b.checkAccepted(),
		b.checkConfirmed(),
	}, nil
}

// holdAll says whether every invariant holds. None at all prove nothing.
func holdAll(invariants []invariant) bool {
	return len(invariants) > 0 && !slices.ContainsFunc(invariants, func(i invariant) bool { return !i.OK })
}

// Findings are what speaks against an invariant, one sentence each.
type findings []string

func (f *findings) addf(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// invariant tells how many there are and the first of them, or, when there are none, the summary.
func (f findings) invariant(name, summary string) invariant {
	if len(f) == 0 {
		return invariant{Name: name, OK: true, Detail: summary}
	}
	const tell = 3
	slices.Sort(f)
	detail := strings.Join(f[:min(tell, len(f))], "; ")
	if more := len(f) - tell; more > 0 {
		detail += fmt.Sprintf("; and %s more", grouped(more))
	}
	return invariant{Name: name, Detail: detail}
}

// checkSettled: what was promised to a customer was carried through, and no order is left half-way.
func (b *books) checkSettled() invariant {
	var f findings
	orders, cancellations := 0, 0
	for id, a := range b.answers {
		switch {
		case !a.accepted():
		case a.kind == "order":
			orders++
			if _, ok := b.orders[id]; !ok {
				f.addf("order %s was accepted and does not exist", id)
			}
		default:
			cancellations++
			if status := b.cancellations[id]; status != "done" {
				f.addf("cancellation %s was accepted and is %s", id, orMissing(status))
			}
		}
	}
	for id, o := range b.orders {
		if o.status != "confirmed" && o.status != "cancelled" {
			f.addf("order %s is %s", id, o.status)
		}
	}
	return f.invariant(ordersSettled, fmt.Sprintf("%s orders and %s cancellations accepted, each carried through",
		grouped(orders), grouped(cancellations)))
}

// checkMoney: the bank holds exactly what the confirmed orders are worth, for each order and so in all, and charged
// nobody twice.
func (b *books) checkMoney() invariant {
	var f findings
	charged, refunded, worth := 0, 0, 0
	for id := range union(union(b.orders, b.charges), b.refunds) {
		order, charge, refund := b.orders[id], b.charges[id], b.refunds[id]
		charged, refunded, worth = charged+charge.pence, refunded+refund, worth+order.worth()
		if charge.pence-refund != order.worth() {
			f.addf("order %s (%s) is worth %s, and the bank charged %s and refunded %s",
				id, orMissing(order.status), pounds(order.worth()), pounds(charge.pence), pounds(refund))
		}
		if charge.times > 1 {
			f.addf("order %s was charged %d times", id, charge.times)
		}
	}
	return f.invariant(moneyAgrees, fmt.Sprintf("%s charged - %s refunded = %s confirmed",
		pounds(charged), pounds(refunded), pounds(worth)))
}

// checkStock: no unit appears or vanishes, and every unit that left belongs to a confirmed order.
func (b *books) checkStock() invariant {
	var f findings
	left := map[string]int{} // units dispatched and not returned, by product
	for i, qty := range b.shipped {
		if b.shipments.status[i.order] == "dispatched" {
			left[i.sku] += qty
		}
	}
	start, stay, gone := 0, 0, 0
	for sku := range union(b.products, left) {
		p := b.products[sku]
		start, stay, gone = start+p.start, stay+p.left, gone+left[sku]
		if p.start != p.left+left[sku] {
			f.addf("product %s: %d at the start, %d left, %d shipped", sku, p.start, p.left, left[sku])
		}
		if p.left < 0 {
			f.addf("product %s: %d left", sku, p.left)
		}
	}
	b.checkShipments(&f)
	return f.invariant(stockAgrees, fmt.Sprintf("%s units at the start = %s left + %s shipped, product by product",
		grouped(start), grouped(stay), grouped(gone)))
}

// checkShipments: a confirmed order was dispatched as it stands, and nothing is held or sent for any other.
func (b *books) checkShipments(f *findings) {
	for i := range union(b.ordered, b.shipped) {
		if b.orders[i.order].confirmed() && b.ordered[i] != b.shipped[i] {
			f.addf("order %s: %d of product %s ordered, %d shipped", i.order, b.ordered[i], i.sku, b.shipped[i])
		}
	}
	for id := range union(b.orders, b.shipments.status) {
		order, status := b.orders[id], b.shipments.status[id]
		held := status == "booked" || status == "dispatched"
		if order.confirmed() && status != "dispatched" || !order.confirmed() && held {
			f.addf("order %s is %s, and its shipment is %s", id, orMissing(order.status), orMissing(status))
		}
	}
	for id, status := range b.reservations.status {
		if order := b.orders[id]; !order.confirmed() && status == "reserved" {
			f.addf("order %s is %s, and its stock is still reserved", id, orMissing(order.status))
		}
	}
}

// checkEffects: each consumer applied each event it listens to once, and nothing that was never committed.
func (b *books) checkEffects() invariant {
	var f findings
	committed := map[string]int{}
	for _, events := range b.events {
		for id, n := range events {
			committed[id] += n // the same id in two services is two events, of which an inbox would drop one
		}
	}
	compareEffects(&f, "views", committed, b.applied["views"])
	compareEffects(&f, topicShipping, b.events[topicOrders], b.applied[topicShipping])
	return f.invariant(effectsOnce, fmt.Sprintf("%s events committed, each applied once by each consumer", grouped(len(committed))))
}

func compareEffects(f *findings, consumer string, committed, applied map[string]int) {
	for id := range union(committed, applied) {
		if committed[id] != applied[id] {
			f.addf("event %s: committed %d, applied %d by %s", id, committed[id], applied[id], consumer)
		}
	}
}

// checkOutboxes: every committed event has left its service.
func (b *books) checkOutboxes() invariant {
	var f findings
	for service, w := range b.waiting {
		if w.pending > 0 || w.parked > 0 {
			f.addf("%s: %d not published, %d of them parked", service, w.pending, w.parked)
		}
	}
	return f.invariant(outboxesEmpty, fmt.Sprintf("%d outboxes, nothing unpublished and nothing parked", len(b.waiting)))
}

// checkSagas: every saga was carried through or wholly undone.
func (b *books) checkSagas() invariant {
	var f findings
	undone := 0
	for id, status := range b.sagas {
		switch status {
		case "completed":
		case "compensated":
			undone++
		default:
			f.addf("saga %s is %s", id, status)
		}
	}
	return f.invariant(sagasEnded, fmt.Sprintf("%s completed, %s compensated, none unfinished or stuck",
		grouped(len(b.sagas)-undone), grouped(undone)))
}

// checkReadModel: what the events built elsewhere says the same as the services themselves.
func (b *books) checkReadModel() invariant {
	var f findings
	for id := range union(b.orders, b.views) {
		order, ordered := b.orders[id]
		view, viewed := b.views[id]
		if !ordered || !viewed {
			f.addf("order %s: %s in orders, %s in the read model", id, orMissing(order.status), orMissing(view.status))
			continue
		}
		if order.status != view.status || order.pence != view.pence {
			f.addf("order %s: %s and %s in orders, %s and %s in the read model",
				id, order.status, pounds(order.pence), view.status, pounds(view.pence))
		}
		b.reservations.compare(&f, id, "stock", view.stock)
		b.payments.compare(&f, id, "payment", view.payment)
		b.shipments.compare(&f, id, "shipment", view.shipment)
	}
	return f.invariant(readModelAgrees, fmt.Sprintf("%s views equal %s orders", grouped(len(b.views)), grouped(len(b.orders))))
}

func (d dealings) compare(f *findings, order, what, word string) {
	if word != d.word(order) {
		f.addf("order %s: its %s is %s, and %q in the read model", order, what, orMissing(d.status[order]), word)
	}
}

// checkAccepted: the gateway kept its door open.
func (b *books) checkAccepted() invariant {
	answered, accepted, _ := b.shares()
	return shareOf(enoughAccepted, 95, accepted, answered, "orders")
}

// checkConfirmed: most of what was accepted was also delivered. An order that its customer cancelled does not count.
func (b *books) checkConfirmed() invariant {
	_, accepted, confirmed := b.shares()
	return shareOf(enoughConfirmed, 60, confirmed, accepted, "accepted orders")
}

func (b *books) shares() (answered, accepted, confirmed int) {
	for id, a := range b.answers {
		if a.kind != "order" {
			continue
		}
		answered++
		if a.accepted() {
			accepted++
			if b.orders[id].confirmed() {
				confirmed++
			}
		}
	}
	return answered, accepted, confirmed
}

func shareOf(name string, percent, part, whole int, what string) invariant {
	detail := fmt.Sprintf("%s of %s %s (%s)", grouped(part), grouped(whole), what, percentage(part, whole))
	return invariant{Name: name, OK: part*100 >= percent*whole, Detail: detail}
}

// union has the keys of both.
func union[K comparable, A, B any](a map[K]A, b map[K]B) map[K]struct{} {
	keys := make(map[K]struct{}, len(a)+len(b))
	for k := range a {
		keys[k] = struct{}{}
	}
	for k := range b {
		keys[k] = struct{}{}
	}
	return keys
}

func orMissing(word string) string {
	if word == "" {
		return "missing"
	}
	return word
}
