package main

// A line of an order, or of the part of an order that is cancelled.
type line struct {
	SKU        string `json:"sku"`
	Qty        int    `json:"qty"`
	PricePence int    `json:"price_pence,omitempty"`
}

// An order as a customer sends it. The customer chooses the id, so that sending it twice orders once.
type order struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Country  string `json:"country"`
	Lines    []line `json:"lines"`
}

func (o order) totalPence() int {
	total := 0
	for _, l := range o.Lines {
		total += l.Qty * l.PricePence
	}
	return total
}

// A cancellation of some or all lines of an earlier order.
type cancellation struct {
	ID      string `json:"id"`
	OrderID string `json:"order_id"`
	Lines   []line `json:"lines"`
}

// A product as the catalogue shows it.
type product struct {
	SKU        string `json:"sku"`
	Name       string `json:"name"`
	PricePence int    `json:"price_pence"`
	Stock      int    `json:"stock"`
}

// A request is what one customer does next: exactly one of its fields is set.
type request struct {
	Order  *order
	Cancel *cancellation
}

// An assortment is what the shop has to sell and what the customers will do: generated from a seed, or read from a file.
type assortment struct {
	Products []product
	Requests []request
	Skipped  map[string]int // lines of the file that are no sales, by reason
	Refused  map[string]int // cancellations without an order to match, by reason
}

// An event is what a service tells the others. Its order of publication is kept for each OrderID.
type event struct {
	ID         string `json:"id"`
	Type       string `json:"type"`
	OrderID    string `json:"order_id"`
	TotalPence int    `json:"total_pence,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

// The topics, one for each service that publishes, and the types of events on them.
const (
	topicOrders    = "orders"
	topicInventory = "inventory"
	topicPayments  = "payments"
	topicShipping  = "shipping"

	orderPlaced        = "order.placed"
	orderConfirmed     = "order.confirmed"
	orderReduced       = "order.reduced"
	orderCancelled     = "order.cancelled"
	stockReserved      = "stock.reserved"
	stockReleased      = "stock.released"
	stockReturned      = "stock.returned"
	paymentCharged     = "payment.charged"
	paymentDeclined    = "payment.declined"
	paymentVoided      = "payment.voided"
	paymentRefunded    = "payment.refunded"
	shipmentBooked     = "shipment.booked"
	shipmentCancelled  = "shipment.cancelled"
	shipmentDispatched = "shipment.dispatched"
	shipmentReturned   = "shipment.returned"
)

// readers are the groups and the topics that each reads.
var readers = map[string][]string{
	topicShipping: {topicOrders},
	"views":       {topicOrders, topicInventory, topicPayments, topicShipping},
}
