package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const replayHeader = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"

// replayRow is a line of a file, in the short form "invoice code quantity price customer".
func replayRow(short string) string {
	f := strings.Split(short, " ")
	return strings.Join([]string{f[0], f[1], `"A ""THING"", red"`, f[2], "2010-12-01 08:26:00", f[3], f[4], "France"}, ",") + "\n"
}

func replayText(short ...string) string {
	text := replayHeader
	for _, s := range short {
		text += replayRow(s)
	}
	return text
}

func replayFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "replay.csv") // whatever it holds: the name means nothing
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

// told is each request as it is sent.
func told(t *testing.T, a assortment) (requests []string) {
	t.Helper()
	for _, r := range a.Requests {
		var v any = r.Order
		if r.Cancel != nil {
			v = r.Cancel
		}
		b, err := json.Marshal(v)
		require.NoError(t, err)
		requests = append(requests, string(b))
	}
	return requests
}

func TestReplay(t *testing.T) {
	const o1 = `{"id":"1","customer":"7","country":"France","lines":[{"sku":"10000","qty":5,"price_pence":255}]}`
	for name, c := range map[string]struct {
		rows     []string
		requests []string
		skipped  map[string]int
		refused  map[string]int
	}{
		"an invoice is an order": {
			rows: []string{"1 10000 5 2.55 7.0", "2 10000 1 2.55 ", "2 10001a 2 0.425 "},
			requests: []string{o1,
				`{"id":"2","customer":"","country":"France","lines":[{"sku":"10000","qty":1,"price_pence":255},{"sku":"10001a","qty":2,"price_pence":43}]}`},
		},
		"lines of one product merge at one price": {
			rows:     []string{"1 10000 5 2.55 7", "1 10000 1 2 7", "1 10000 3 2.55 7"},
			requests: []string{`{"id":"1","customer":"7","country":"France","lines":[{"sku":"10000","qty":8,"price_pence":255},{"sku":"10000","qty":1,"price_pence":200}]}`},
		},
		"an invoice in two runs is one order": {
			rows:     []string{"1 10000 4 2.55 7", "C2 10000 -1 2.55 7", "1 10000 1 2.55 7", "C3 10000 -4 2.55 7", "C4 10000 -1 2.55 7"},
			requests: []string{o1, `{"id":"C2","order_id":"1","lines":[{"sku":"10000","qty":1,"price_pence":255}]}`, `{"id":"C3","order_id":"1","lines":[{"sku":"10000","qty":4,"price_pence":255}]}`},
			refused:  map[string]int{"more than was ordered": 1},
		},
		"lines that are no sales": {
			rows: []string{"1 POST 1 18 7", "1 gift_0001_20 1 18 7", "1  1 18 7", "1 10000 5 2.55 7", "1 10000 5 0 7", "1 10000 5 -1 7", "1 10000 5 0.001 7",
				"1 10000 -5 2 7", "1 10000 0 2 7", "2 M 1 3 7", "A3 B 1 11062.06 ", "A4 10000 1 -11062.06 "},
			requests: []string{o1},
			skipped: map[string]int{"no product (postage, fees, vouchers, samples)": 3, "no stock code": 1, "price not above 0": 3,
				"quantity not above 0": 2, "bad debt": 2, "(invoices of which nothing is left)": 3},
		},
		"a cancellation is matched with the latest order that can bear it": {
			rows: []string{"1 10000 5 2.55 7", "2 10000 3 2 7", "3 10000 9 2 8", "C4 10000 -4 2 7", "C5 10000 -3 2.55 7", "C6 10000 -2 2 7", "8 10000 1 1 7", "9 10000 1 2 7", "C10 10000 -1 1 7"},
			requests: []string{o1,
				`{"id":"2","customer":"7","country":"France","lines":[{"sku":"10000","qty":3,"price_pence":200}]}`,
				`{"id":"3","customer":"8","country":"France","lines":[{"sku":"10000","qty":9,"price_pence":200}]}`,
				`{"id":"C4","order_id":"1","lines":[{"sku":"10000","qty":4,"price_pence":255}]}`,
				`{"id":"C5","order_id":"2","lines":[{"sku":"10000","qty":3,"price_pence":200}]}`,
				`{"id":"8","customer":"7","country":"France","lines":[{"sku":"10000","qty":1,"price_pence":100}]}`,
				`{"id":"9","customer":"7","country":"France","lines":[{"sku":"10000","qty":1,"price_pence":200}]}`,
				`{"id":"C10","order_id":"9","lines":[{"sku":"10000","qty":1,"price_pence":200}]}`},
			refused: map[string]int{"more than was ordered": 1},
		},
		"a cancellation prefers the line with its price": {
			rows: []string{"1 10000 5 2.55 7", "1 10000 3 2 7", "C2 10000 -4 2 7", "C3 10000 -4 9 7"},
			requests: []string{`{"id":"1","customer":"7","country":"France","lines":[{"sku":"10000","qty":5,"price_pence":255},{"sku":"10000","qty":3,"price_pence":200}]}`,
				`{"id":"C2","order_id":"1","lines":[{"sku":"10000","qty":3,"price_pence":200},{"sku":"10000","qty":1,"price_pence":255}]}`,
				`{"id":"C3","order_id":"1","lines":[{"sku":"10000","qty":4,"price_pence":255}]}`},
		},
		"a cancellation is whole or refused": {
			rows: []string{"1 10000 5 2.55 7", "C2 10000 -1 2.55 7", "C2 10001 -1 2.55 7", "C3 10000 -1 2.55 ", "C4 10000 -1 2.55 8", "C5 POST -1 2.55 7", "C6 10000 1 2.55 7",
				"C7 10000 -1 2.55 7", "C8 10000 -9 2.55 8", "C7 10000 -1 2.55 7"},
			requests: []string{o1, `{"id":"C7","order_id":"1","lines":[{"sku":"10000","qty":1,"price_pence":255}]}`},
			skipped:  map[string]int{"no product (postage, fees, vouchers, samples)": 1, "quantity not below 0 in a cancellation": 1},
			refused: map[string]int{"no earlier order holds what is cancelled": 1, "no customer given": 1, "no earlier order of this customer": 2, "nothing that was sold": 2,
				"the number was used before": 1},
		},
		"a cancellation has lines that are no sales": {
			rows:     []string{"1 10000 5 2.55 7", "C2 10000 -1 2.55 7", "C2 POST -1 18 7"},
			requests: []string{o1, `{"id":"C2","order_id":"1","lines":[{"sku":"10000","qty":1,"price_pence":255}]}`},
			skipped:  map[string]int{"no product (postage, fees, vouchers, samples)": 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, content := range []string{replayText(c.rows...), zipped(t, replayText(c.rows...)), strings.ReplaceAll(replayText(c.rows...), "\n", "\r\n")} {
				a, err := readReplay(replayFile(t, content), 100)
				require.NoError(t, err)
				require.Equal(t, c.requests, told(t, a))
				require.Equal(t, orEmpty(c.skipped), a.Skipped)
				require.Equal(t, orEmpty(c.refused), a.Refused)
				require.Equal(t, `A "THING", red`, a.Products[0].Name)
				checkAssortment(t, a)
			}
		})
	}
}

func orEmpty(m map[string]int) map[string]int {
	if m == nil {
		return map[string]int{}
	}
	return m
}

func TestReplayNamesTheFault(t *testing.T) {
	fine := replayText("1 10000 5 2.55 7.0", "2 10000 5 2.55 7.0")
	var many strings.Builder
	many.WriteString(replayHeader)
	for range 2000 {
		many.WriteString(replayRow("1 10000 5 2.55 7.0"))
	}
	packed := zipped(t, many.String())
	broken := []byte(packed)
	broken[len(broken)-6] ^= 1 // in the checksum
	for name, c := range map[string]struct {
		content string
		line    int
		column  string
	}{
		"empty":                  {"", 1, ""},
		"no header":              {strings.TrimPrefix(fine, replayHeader), 1, "InvoiceNo"},
		"other columns":          {strings.Replace(fine, "UnitPrice", "Price", 1), 1, "UnitPrice"},
		"a column less":          {strings.Replace(fine, ",Country", "", 1), 1, "Country"},
		"a column more":          {strings.Replace(fine, ",Country", ",Country,Region", 1), 1, "Region"},
		"header alone":           {replayHeader, 1, ""},
		"nothing sold":           {replayText("1 POST 5 2.55 7.0", "2 POST 5 2.55 7.0"), 3, ""},
		"too few fields":         {fine + "3,10000\n", 4, ""},
		"too many fields":        {fine + strings.TrimSpace(replayRow("3 10000 5 2.55 7.0")) + ",x\n", 4, ""},
		"cut short":              {fine[:len(fine)-20], 3, ""},
		"cut short in quotes":    {fine[:len(fine)-60], 3, ""},
		"open quote":             {fine + strings.Replace(replayRow("3 10000 5 2.55 7.0"), `red"`, "red", 1), 4, ""},
		"stray quote":            {fine + strings.Replace(replayRow("3 10000 5 2.55 7.0"), "France", `Fr"ance`, 1), 4, ""},
		"invoice":                {fine + replayRow("x3 10000 5 2.55 7.0"), 4, "InvoiceNo"},
		"no invoice":             {fine + replayRow(" 10000 5 2.55 7.0"), 4, "InvoiceNo"},
		"quantity":               {fine + replayRow("3 10000 five 2.55 7.0"), 4, "Quantity"},
		"broken quantity":        {fine + replayRow("3 10000 5.5 2.55 7.0"), 4, "Quantity"},
		"huge quantity":          {fine + replayRow("3 10000 9223372036854775807 2.55 7.0"), 4, "Quantity"},
		"huge negative quantity": {fine + replayRow("3 10000 -9223372036854775808 2.55 7.0"), 4, "Quantity"},
		"date":                   {fine + strings.Replace(replayRow("3 10000 5 2.55 7.0"), "12-01", "13-01", 1), 4, "InvoiceDate"},
		"price":                  {fine + replayRow("3 10000 5 £2.55 7.0"), 4, "UnitPrice"},
		"price NaN":              {fine + replayRow("3 10000 5 NaN 7.0"), 4, "UnitPrice"},
		"price without end":      {fine + replayRow("3 10000 5 1e300 7.0"), 4, "UnitPrice"},
		"customer":               {fine + replayRow("3 10000 5 2.55 7.5"), 4, "CustomerID"},
		"after a long field":     {fine + strings.Replace(replayRow("3 10000 5 2.55 7.0"), "red", "red\nand\nblue", 1) + replayRow("4 10000 x 1 7.0"), 7, "Quantity"},
		"gzip header cut":        {packed[:5], 1, ""},
		"gzip of nothing":        {zipped(t, ""), 1, ""},
		"gzip checksum":          {string(broken), 2002, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := readReplay(replayFile(t, c.content), 100)
			var fault *replayError
			require.ErrorAs(t, err, &fault)
			require.Equal(t, c.line, fault.Line, err)
			require.Equal(t, c.column, fault.Column, err)
			require.Contains(t, err.Error(), "replay.csv: line ")
			require.Empty(t, a)
		})
	}
	for _, size := range []int{len(packed) / 2, len(packed) - 9, len(packed) - 1} {
		_, err := readReplay(replayFile(t, packed[:size]), 100)
		var fault *replayError
		require.ErrorAs(t, err, &fault, "cut after %d of %d", size, len(packed))
		require.Greater(t, fault.Line, 1)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
	_, err := readReplay(filepath.Join(t.TempDir(), "none"), 1)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorAs(t, err, new(*replayError))
}

func TestReplayReadsNoFurtherThanItMust(t *testing.T) {
	text := replayText("1 10000 5 2.55 7", "2 10000 5 2.55 7", "3 10000 5 2.55 7") + "then the disk was full"
	a, err := readReplay(replayFile(t, text), 2)
	require.NoError(t, err)
	orders, _ := checkAssortment(t, a)
	require.Equal(t, 2, orders)
	_, err = readReplay(replayFile(t, text), 3)
	require.Error(t, err)
}

func TestReplayOfRealInvoices(t *testing.T) {
	const path = "../../../shared/data/online-retail.csv.gz"
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the Online Retail data set (UCI Machine Learning Repository) is not at %s: put it there to run this test", path)
	}
	for _, want := range []struct{ ask, orders, cancellations, products, units, pence int }{
		{2000, 2000, 187, 2874, 500942, 104985368},
		{20000, 19773, 2644, 3900, 5576996, 1027103461}, // all there are; the sums were made by another program as well
	} {
		a, err := readReplay(path, want.ask)
		require.NoError(t, err)
		orders, cancellations := checkAssortment(t, a)
		units, pence := 0, 0
		for _, r := range a.Requests {
			if r.Order != nil {
				pence += r.Order.totalPence()
			}
		}
		for _, n := range demand(a.Requests) {
			units += n
		}
		require.Equal(t, want.orders, orders)
		require.Equal(t, want.cancellations, cancellations)
		require.Len(t, a.Products, want.products)
		require.Equal(t, want.units, units)
		require.Equal(t, want.pence, pence)
		failed, _ := shortages(a.Requests, stockOf(a))
		require.True(t, failed*10 <= orders && failed*100 >= orders, "%d of %d find no stock", failed, orders)
	}
}

func FuzzReplay(f *testing.F) {
	f.Add([]byte(replayText("1 10000 5 2.55 7.0", "2 POST 1 1 ", "C3 10000 -2 2.55 7", "1 10000 1 2.55 7", "A4 B 1 1 ")))
	f.Add([]byte(replayHeader + "1,10000,\"a\nb\",1,2010-12-01 08:26:00,1,,\n"))
	f.Add([]byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, content []byte) {
		r := newReplay()
		if err := r.read(bytes.NewReader(content), 10); err != nil {
			require.Positive(t, err.Line)
			require.Error(t, err.Err)
			return
		}
		orders, _ := checkAssortment(t, r.finish())
		require.True(t, orders >= 1 && orders <= 10)
	})
}
