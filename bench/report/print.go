package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/backstay-go/backstay/bench"
	"github.com/backstay-go/backstay/bench/cases"
)

func (r *report) print(out io.Writer) error {
	fmt.Fprintln(out, r.Head)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, a := range r.Areas {
		a.print(w)
	}
	return w.Flush()
}

func (a *area) print(w io.Writer) {
	last := ""
	for _, row := range a.Rows {
		if row.Case != last {
			fmt.Fprintf(w, "\n%s: %s\tns/op\tallocs\tx floor\n", row.Area, row.Case)
			last = row.Case
		}
		fmt.Fprintf(w, "  %s\t%.1f\t%d\t%.1f%s\n", row.Subject, row.NsOp, row.AllocsOp, row.RatioToFloor, row.loads("\t"))
	}
	if len(a.Reached) > 0 {
		fmt.Fprintf(w, "\nto reach\tagainst\tlimit\tmeasured\tallocs\n")
	}
	for _, t := range a.Reached {
		fmt.Fprintf(w, "  %s: %s\t%s\t%s\t%s\t%s\t%s\n", t.Case, t.Subject, t.Against, t.limit(), t.measured(), t.allocs(), t.verdict())
	}
	a.printRatios(w)
	for _, err := range a.Skipped {
		fmt.Fprintf(w, "\nskipped: %v\n", err)
	}
	if len(a.Cells) > 0 {
		a.printCells(w)
	}
}

// loads tells of the loads, where they were counted.
func (r row) loads(before string) string {
	if r.LoadsOp == 0 {
		return ""
	}
	return fmt.Sprintf("%sloads: %.4g", before, r.LoadsOp)
}

func (a *area) printRatios(w io.Writer) {
	last := ""
	for _, r := range a.Ratios {
		if r.Case != last {
			fmt.Fprintf(w, "\nhit ratio: %s\t%%\nbest fixed set\t%.2f\n", r.Case, r.Best)
			last = r.Case
		}
		fmt.Fprintf(w, "  %s\t%.2f\n", r.Subject, r.Percent)
	}
	if len(a.Ratios) > 0 {
		fmt.Fprintln(w, "\n"+shortfallText(a.Ratios))
	}
}

func shortfallText(ratios []bench.Ratio) string {
	mean, worst := bench.Shortfall(ratios)
	t := bench.RatioTarget
	return fmt.Sprintf("Hit ratio: %s falls short of %s by %.2f points on average, %.2f at most; limit of the average %.2f: %s.",
		t.Subject, t.Against, mean, worst, t.Points, verdict(mean <= t.Points))
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

func (t reached) verdict() string { return verdict(t.Yes) }

func verdict(yes bool) string {
	if yes {
		return "reached"
	}
	return "NOT REACHED"
}

func (a *area) printCells(w io.Writer) {
	fmt.Fprint(w, "\ncase")
	for _, s := range a.suite.Subjects {
		fmt.Fprintf(w, "\t%s", s.Key)
	}
	for i, c := range a.suite.Cases {
		fmt.Fprintf(w, "\n%s", c.ID)
		for _, cell := range a.cellsOf(i) {
			fmt.Fprintf(w, "\t%s", cell.Verdict)
		}
		fmt.Fprintf(w, "\t%s", c.Title)
	}
	fmt.Fprint(w, "\n\n")
	for _, cell := range a.Cells {
		if cell.Verdict == cases.Fail {
			fmt.Fprintf(w, "%s %s: %s\n", cell.Case, cell.Subject, cell.Detail)
		}
	}
}

// cellsOf is one line of the table: the results stand by case and then by subject.
func (a *area) cellsOf(index int) []cases.Result {
	n := len(a.suite.Subjects)
	return a.Cells[index*n : (index+1)*n]
}
