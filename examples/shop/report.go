package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A result is what a run has to show, and with -json all that it prints. Money is in pence.
type result struct {
	Orders                int         `json:"orders"`
	Accepted              int         `json:"accepted"`
	Confirmed             int         `json:"confirmed"`
	Cancelled             int         `json:"cancelled"`
	Unfinished            int         `json:"unfinished"`
	ChargedPence          int         `json:"charged_pence"`
	ConfirmedPence        int         `json:"confirmed_pence"`
	RefundedPence         int         `json:"refunded_pence"`
	UnitsReserved         int         `json:"units_reserved"`
	UnitsShipped          int         `json:"units_shipped"`
	EventsPublished       int         `json:"events_published"`
	EventsHandled         int         `json:"events_handled"`
	DuplicatesSuppressed  int         `json:"duplicates_suppressed"`
	DeadLetters           int         `json:"dead_letters"`
	Retries               int         `json:"retries"`
	BreakerOpened         int         `json:"breaker_opened"`
	Fallbacks             int         `json:"fallbacks"`
	Redeliveries          int         `json:"redeliveries"`
	Compensations         int         `json:"compensations"`
	LostReplies           int         `json:"lost_replies"`
	CatalogueHits         int         `json:"catalogue_hits"`
	CatalogueLoads        int         `json:"catalogue_loads"`
	CatalogueRefreshes    int         `json:"catalogue_refreshes"`
	CatalogueStaleServed  int         `json:"catalogue_stale_served"`
	CatalogueNegativeHits int         `json:"catalogue_negative_hits"`
	Seconds               float64     `json:"seconds"`
	Invariants            []invariant `json:"invariants"`
	OK                    bool        `json:"ok"`
}

// Details are what the report tells beside the result.
type details struct {
	Source  string         // where the orders came from: "200 orders generated from seed 1, with faults"
	Faults  []figure       // what the bank and the inventory service did, in the order to be shown
	Skipped map[string]int // lines of the replayed file that are no sales, by reason
	Refused map[string]int // cancellations of the replayed file that were not sent, by reason
	Notes   []string       // what else the reader has to know, such as an interrupt or where the data is
}

// A figure is one line of the report.
type figure struct {
	Name  string
	Value int
}

// writeJSON writes the result as one object on one line.
func writeJSON(w io.Writer, r result) error {
	r.Seconds = math.Round(r.Seconds*1000) / 1000
	if r.Invariants == nil {
		r.Invariants = []invariant{} // an empty list, not null
	}
	if err := json.NewEncoder(w).Encode(r); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// writeReport writes the result for a person, all at once. It uses colour on a terminal alone, and only for the proof.
func writeReport(w io.Writer, r result, d details) error {
	var p page
	p.printf("The shop: %s\n", d.Source)
	p.ordered(r)
	p.figures("Lines of the file that are no sales", byFrequency(d.Skipped))
	p.figures("Cancellations of the file that match no order", byFrequency(d.Refused))
	p.figures("What the faults did", append(slices.Clone(d.Faults),
		figure{"lost replies: the bank did it and did not say so", r.LostReplies},
		figure{"retries", r.Retries},
		figure{"breaker openings", r.BreakerOpened},
		figure{"fallbacks", r.Fallbacks},
		figure{"compensations", r.Compensations},
	))
	p.figures("What the catalogue answered", []figure{
		{"hits", r.CatalogueHits},
		{"hits: there is no such product", r.CatalogueNegativeHits},
		{"stale answers while inventory was away", r.CatalogueStaleServed},
		{"loads", r.CatalogueLoads},
		{"loads in the background, ahead of time", r.CatalogueRefreshes},
	})
	p.figures("What the services told each other", []figure{
		{"events published", r.EventsPublished},
		{"events handled", r.EventsHandled},
		{"redeliveries", r.Redeliveries},
		{"duplicates suppressed", r.DuplicatesSuppressed},
		{"dead letters", r.DeadLetters},
	})
	p.proof(r.Invariants, isTerminal(w) && os.Getenv("NO_COLOR") == "")
	p.verdict(r, d.Notes)
	if _, err := p.WriteTo(w); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// A page is the report while it is being written.
type page struct{ bytes.Buffer }

func (p *page) printf(format string, args ...any) { fmt.Fprintf(&p.Buffer, format, args...) }

func (p *page) title(title string) { p.printf("\n%s\n", title) }

func (p *page) line(name, value, remark string) {
	row := fmt.Sprintf("  %-48s %14s   %s", name, value, remark)
	p.printf("%s\n", strings.TrimRight(row, " "))
}

func (p *page) figures(title string, figures []figure) {
	if len(figures) == 0 {
		return
	}
	p.title(title)
	for _, f := range figures {
		p.line(f.Name, grouped(f.Value), "")
	}
}

func (p *page) ordered(r result) {
	p.title("What was ordered")
	p.line("orders answered", grouped(r.Orders), "")
	p.line("accepted", grouped(r.Accepted), percentage(r.Accepted, r.Orders))
	p.line("confirmed", grouped(r.Confirmed), percentage(r.Confirmed, r.Accepted))
	p.line("cancelled", grouped(r.Cancelled), percentage(r.Cancelled, r.Accepted))
	p.line("unfinished", grouped(r.Unfinished), "")
	p.line("charged", pounds(r.ChargedPence), "")
	p.line("refunded", pounds(r.RefundedPence), "")
	p.line("worth of the confirmed orders", pounds(r.ConfirmedPence), "")
	p.line("units reserved", grouped(r.UnitsReserved), "")
	p.line("units shipped", grouped(r.UnitsShipped), "")
}

func (p *page) proof(invariants []invariant, colour bool) {
	p.title("The proof")
	for _, i := range invariants {
		word, sgr := "ok    ", "32"
		if !i.OK {
			word, sgr = "FAILED", "1;31"
		}
		if colour {
			word = "\x1b[" + sgr + "m" + word + "\x1b[0m"
		}
		p.printf("  %s  %-28s  %s\n", word, i.Name, i.Detail)
	}
}

func (p *page) verdict(r result, notes []string) {
	p.printf("\n")
	for _, note := range notes {
		p.printf("%s\n", note)
	}
	broken := 0
	for _, i := range r.Invariants {
		if !i.OK {
			broken++
		}
	}
	if r.OK {
		p.printf("All %d invariants hold after %.1f s.\n", len(r.Invariants), r.Seconds)
	} else {
		p.printf("%d of %d invariants FAILED after %.1f s.\n", broken, len(r.Invariants), r.Seconds)
	}
}

// byFrequency is the most frequent first.
func byFrequency(counts map[string]int) []figure {
	figures := make([]figure, 0, len(counts))
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		figures = append(figures, figure{name, counts[name]})
	}
	slices.SortStableFunc(figures, func(a, b figure) int { return cmp.Compare(b.Value, a.Value) })
	return figures
}

// grouped is n with a comma between each three digits: -1,234,567.
func grouped(n int) string {
	s := strconv.Itoa(n)
	first := 0
	if n < 0 {
		first = 1
	}
	for i := len(s) - 3; i > first; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// pounds is an amount in pence: £1,234.56.
func pounds(pence int) string {
	sign := ""
	if pence < 0 {
		sign, pence = "-", -pence
	}
	return fmt.Sprintf("%s£%s.%02d", sign, grouped(pence/100), pence%100)
}

// percentage is rounded down, so that 100.0 % means all.
func percentage(part, whole int) string {
	if whole == 0 {
		return "-"
	}
	tenths := part * 1000 / whole
	return fmt.Sprintf("%d.%d %%", tenths/10, tenths%10)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
