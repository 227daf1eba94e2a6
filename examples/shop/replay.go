package main

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// replayColumns are the columns of the "Online Retail" data set, in its order.
var replayColumns = []string{"InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"}

var (
	invoiceForm  = regexp.MustCompile(`^[AC]?[0-9]+$`)
	customerForm = regexp.MustCompile(`^([0-9]+)(\.0)?$|^$`)
	productForm  = regexp.MustCompile(`^[0-9]{5}`)
)

// Larger numbers are no trade but damage; the bounds also keep sums of pence far from overflow.
const (
	maxReplayQuantity = 1_000_000
	maxReplayPrice    = 1_000_000 // pounds
)

// A replayError says where a replay file is wrong.
type replayError struct {
	Path   string
	Line   int    // counted from 1, the header; 0 when the file could not be opened
	Column string // empty when the line as a whole is wrong
	Err    error
}

func (e *replayError) Error() string {
	where := "replay " + e.Path
	if e.Line > 0 {
		where += fmt.Sprintf(": line %d", e.Line)
	}
	if e.Column != "" {
		where += ", column " + e.Column
	}
	return where + ": " + e.Err.Error()
}

func (e *replayError) Unwrap() error { return e.Err }

// readReplay reads the first orders of a file of invoices, plain or gzip, and what their customers cancelled in the
// meantime. It reads no further than it must. What is wrong is a *replayError.
func readReplay(path string, orders int) (assortment, error) {
	file, err := os.Open(path)
	if err != nil {
		return assortment{}, &replayError{Path: path, Err: err}
	}
	defer file.Close()
	r := newReplay()
	if err := r.read(file, orders); err != nil {
		err.Path = path
		return assortment{}, err
	}
	return r.finish(), nil
}

// A replay gathers lines into invoices and invoices into requests.
type replay struct {
	made     assortment
	products map[string]bool
	invoice  invoice
	orders   map[string]*purchase   // by id
	history  map[string][]*purchase // by customer, in order of the file
	cancels  map[string]bool        // ids
}

// An invoice is a run of lines with the same number.
type invoice struct {
	id, customer, country string
	lines                 []line
}

// A purchase is an order and what of it has not been cancelled.
type purchase struct {
	order *order
	left  []line
}

func newReplay() *replay {
	return &replay{
		made:     assortment{Skipped: map[string]int{}, Refused: map[string]int{}},
		products: map[string]bool{},
		orders:   map[string]*purchase{},
		history:  map[string][]*purchase{},
		cancels:  map[string]bool{},
	}
}

func (r *replay) read(file io.Reader, orders int) *replayError {
	plain, err := unzipped(file)
	if err != nil {
		return &replayError{Line: 1, Err: err}
	}
	rows := csv.NewReader(plain)
	rows.FieldsPerRecord = -1 // checked below, where the message can say more
	rows.ReuseRecord = true
	header, err := rows.Read()
	if err != nil {
		return damaged(err, 1)
	}
	if fault := checkHeader(header); fault != nil {
		return fault
	}
	at, _ := rows.FieldPos(0)
	for len(r.orders) < orders {
		row, err := rows.Read()
		if err == io.EOF {
			r.close()
			break
		}
		if err != nil {
			return damaged(err, at+1)
		}
		at, _ = rows.FieldPos(0)
		if fault := r.row(row); fault != nil {
			fault.Line = at
			return fault
		}
	}
	if len(r.orders) == 0 && orders > 0 {
		return &replayError{Line: at, Err: errors.New("the file ends without an order")}
	}
	return nil
}

// damaged makes a replayError of an error of the csv reader, or of what it reads from, met at the given line.
func damaged(err error, at int) *replayError {
	if errors.Is(err, io.EOF) {
		err = errors.New("the file is empty")
	}
	if malformed := (*csv.ParseError)(nil); errors.As(err, &malformed) {
		return &replayError{Line: malformed.Line, Err: malformed.Err}
	}
	return &replayError{Line: at, Err: fmt.Errorf("the file is damaged or cut short: %w", err)}
}

// unzipped looks at the content, not at the name.
func unzipped(file io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(file, 1<<16)
	if magic, _ := buffered.Peek(2); string(magic) != "\x1f\x8b" {
		return buffered, nil
	}
	return gzip.NewReader(buffered)
}

// row takes one line of the file.
func (r *replay) row(row []string) *replayError {
	s, fault := parseSale(row)
	if fault != nil {
		return fault
	}
	if s.invoice != r.invoice.id {
		r.close()
		r.invoice = invoice{id: s.invoice, customer: s.customer, country: s.country}
	}
	if reason := s.noSale(); reason != "" {
		r.made.Skipped[reason]++
		return nil
	}
	r.invoice.lines = addLine(r.invoice.lines, line{SKU: s.sku, Qty: max(s.qty, -s.qty), PricePence: s.pence})
	if s.qty > 0 && !r.products[s.sku] {
		r.products[s.sku] = true
		r.made.Products = append(r.made.Products, product{SKU: s.sku, Name: cmp.Or(s.name, s.sku), PricePence: s.pence})
	}
	return nil
}

func checkHeader(row []string) *replayError {
	for i, want := range replayColumns {
		if i >= len(row) {
			return &replayError{Line: 1, Column: want, Err: errors.New("there is no such column")}
		}
		if row[i] != want {
			return &replayError{Line: 1, Column: want, Err: fmt.Errorf("%q is in its place; the columns must be %s", row[i], strings.Join(replayColumns, ","))}
		}
	}
	if len(row) > len(replayColumns) {
		return &replayError{Line: 1, Column: row[len(replayColumns)], Err: errors.New("nobody knows this column")}
	}
	return nil
}

// close makes a request of the invoice that is complete.
func (r *replay) close() {
	in := r.invoice
	r.invoice = invoice{}
	switch {
	case in.id == "":
	case strings.HasPrefix(in.id, "C"):
		r.cancel(in)
	case len(in.lines) == 0:
		r.made.Skipped["(invoices of which nothing is left)"]++
	default:
		r.order(in)
	}
}

func (r *replay) order(in invoice) {
	p := r.orders[in.id]
	if p == nil {
		p = &purchase{order: &order{ID: in.id, Customer: in.customer, Country: in.country}}
		r.orders[in.id] = p
		r.made.Requests = append(r.made.Requests, request{Order: p.order})
		if in.customer != "" {
			r.history[in.customer] = append(r.history[in.customer], p)
		}
	}
	// An order's lines may stand in two runs, with another invoice between.
	for _, l := range in.lines {
		p.order.Lines = addLine(p.order.Lines, l)
		p.left = addLine(p.left, l)
	}
}

// cancel matches a cancellation with the customer's latest order that can bear all of it.
func (r *replay) cancel(in invoice) {
	reason := ""
	switch earlier := r.history[in.customer]; {
	case len(in.lines) == 0:
		reason = "nothing that was sold"
	case r.cancels[in.id]:
		reason = "the number was used before"
	case in.customer == "":
		reason = "no customer given"
	case len(earlier) == 0:
		reason = "no earlier order of this customer"
	default:
		reason = "no earlier order holds what is cancelled"
		for _, p := range slices.Backward(earlier) {
			if lines := p.take(in.lines); lines != nil {
				r.cancels[in.id] = true
				r.made.Requests = append(r.made.Requests, request{Cancel: &cancellation{ID: in.id, OrderID: p.order.ID, Lines: lines}})
				return
			}
			if p.holds(in.lines) {
				reason = "more than was ordered"
			}
		}
	}
	r.made.Refused[reason]++
}

// take removes lines from what is left of p and returns them at the prices of the order, or nil when not all of them are
// left. Of two lines of one sku, the one with the wanted price goes first.
func (p *purchase) take(lines []line) []line {
	var taken []line
	left := slices.Clone(p.left)
	for _, want := range lines {
		for _, samePrice := range []bool{true, false} {
			for i, l := range left {
				if l.SKU != want.SKU || (l.PricePence == want.PricePence) != samePrice {
					continue
				}
				n := min(l.Qty, want.Qty)
				left[i].Qty -= n
				want.Qty -= n
				if n > 0 {
					taken = addLine(taken, line{SKU: l.SKU, Qty: n, PricePence: l.PricePence})
				}
			}
		}
		if want.Qty > 0 {
			return nil
		}
	}
	p.left = left
	return taken
}

// holds reports whether the order has the products of all lines, in whatever quantity.
func (p *purchase) holds(lines []line) bool {
	for _, want := range lines {
		if !slices.ContainsFunc(p.left, func(l line) bool { return l.SKU == want.SKU }) {
			return false
		}
	}
	return true
}

func (r *replay) finish() assortment {
	stock := scarcity(r.made.Requests)
	for i, p := range r.made.Products {
		r.made.Products[i].Stock = stock[p.SKU]
	}
	return r.made
}

// addLine merges l with the line of the same sku and price.
func addLine(lines []line, l line) []line {
	for i, have := range lines {
		if have.SKU == l.SKU && have.PricePence == l.PricePence {
			lines[i].Qty += l.Qty
			return lines
		}
	}
	return append(lines, l)
}

// A sale is one line of the file, which may turn out to be none.
type sale struct {
	invoice, sku, name, customer, country string
	qty, pence                            int
}

func parseSale(row []string) (sale, *replayError) {
	if len(row) != len(replayColumns) {
		return sale{}, &replayError{Err: fmt.Errorf("it has %d fields, not %d: the file may be cut short", len(row), len(replayColumns))}
	}
	fields := make([]string, len(row))
	for i, f := range row {
		fields[i] = strings.TrimSpace(f)
	}
	s := sale{invoice: fields[0], sku: fields[1], name: strings.ToValidUTF8(fields[2], "?"), customer: strings.TrimSuffix(fields[6], ".0"), country: fields[7]}
	if !invoiceForm.MatchString(s.invoice) {
		return s, &replayError{Column: "InvoiceNo", Err: fmt.Errorf("%q is no number, with C or A before it or without", s.invoice)}
	}
	qty, err := strconv.Atoi(fields[3])
	if err != nil || qty < -maxReplayQuantity || qty > maxReplayQuantity {
		return s, &replayError{Column: "Quantity", Err: fmt.Errorf("%q is no whole number up to %d", fields[3], maxReplayQuantity)}
	}
	if _, err := time.Parse(time.DateTime, fields[4]); err != nil {
		return s, &replayError{Column: "InvoiceDate", Err: fmt.Errorf("%q is no time like 2010-12-01 08:26:00", fields[4])}
	}
	price, err := strconv.ParseFloat(fields[5], 64)
	if err != nil || !(math.Abs(price) <= maxReplayPrice) { // a NaN is refused too
		return s, &replayError{Column: "UnitPrice", Err: fmt.Errorf("%q is no price up to %d", fields[5], maxReplayPrice)}
	}
	if !customerForm.MatchString(fields[6]) {
		return s, &replayError{Column: "CustomerID", Err: fmt.Errorf("%q is no number", fields[6])}
	}
	s.qty, s.pence = qty, int(math.Round(price*100))
	return s, nil
}

// noSale says why the line is none, or nothing.
func (s sale) noSale() string {
	cancels := strings.HasPrefix(s.invoice, "C")
	switch {
	case strings.HasPrefix(s.invoice, "A"):
		return "bad debt"
	case s.sku == "":
		return "no stock code"
	case !productForm.MatchString(s.sku):
		return "no product (postage, fees, vouchers, samples)"
	case s.pence <= 0:
		return "price not above 0"
	case cancels && s.qty >= 0:
		return "quantity not below 0 in a cancellation"
	case !cancels && s.qty <= 0:
		return "quantity not above 0"
	}
	return ""
}
