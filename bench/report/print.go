package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/backstay-go/backstay/bench/cases"
)

func (r *report) print(out io.Writer) error {
	fmt.Fprintln(out, r.Head)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	last := ""
	for _, row := range r.Rows {
		if row.Case != last {
			fmt.Fprintf(w, "\n%s: %s\tns/op\tallocs\tx floor\n", row.Area, row.Case)
			last = row.Case
		}
		fmt.Fprintf(w, "  %s\t%.1f\t%d\t%.1f\n", row.Subject, row.NsOp, row.AllocsOp, row.RatioToFloor)
	}
	if len(r.Reached) > 0 {
		fmt.Fprintf(w, "\nto reach\tagainst\tlimit\tmeasured\tallocs\n")
	}
	for _, t := range r.Reached {
		fmt.Fprintf(w, "  %s: %s\t%s\t%s\t%s\t%s\t%s\n", t.Case, t.Subject, t.Against, t.limit(), t.measured(), t.allocs(), t.verdict())
	}
	if len(r.Cells) > 0 {
		printCells(w, r.Cells)
	}
	return w.Flush()
}

func (t reached) limit() string {
	switch {
	case t.Plus > 0:
		return fmt.Sprintf("+%.0f ns", t.Plus)
	case t.Added:
		return fmt.Sprintf("%.2f of the added cost", t.Ratio)
	default:
		return fmt.Sprintf("%.2f", t.Ratio)
	}
}

func (t reached) measured() string {
	if t.Plus > 0 {
		return fmt.Sprintf("%+.1f ns", t.Measured)
	}
	return fmt.Sprintf("%.3f", t.Measured)
}

func (t reached) allocs() string {
	if t.Target.Allocs < 0 {
		return fmt.Sprint(t.Allocs)
	}
	return fmt.Sprintf("%d of %d", t.Allocs, t.Target.Allocs)
}

func (t reached) verdict() string {
	if t.Yes {
		return "reached"
	}
	return "NOT REACHED"
}

func printCells(w io.Writer, cells []cases.Result) {
	fmt.Fprint(w, "\ncase")
	for _, s := range cases.Subjects() {
		fmt.Fprintf(w, "\t%s", s.Key)
	}
	for i, c := range cases.All() {
		fmt.Fprintf(w, "\n%s", c.ID)
		for _, cell := range cellsOf(cells, i) {
			fmt.Fprintf(w, "\t%s", cell.Verdict)
		}
		fmt.Fprintf(w, "\t%s", c.Title)
	}
	fmt.Fprint(w, "\n\n")
	for _, cell := range cells {
		if cell.Verdict == cases.Fail {
			fmt.Fprintf(w, "%s %s: %s\n", cell.Case, cell.Subject, cell.Detail)
		}
	}
}

// cellsOf is one line of the table: the results stand by case and then by subject.
func cellsOf(cells []cases.Result, index int) []cases.Result {
	n := len(cases.Subjects())
	return cells[index*n : (index+1)*n]
}
