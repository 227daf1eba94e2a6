package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/backstay-go/backstay/bench"
)

// showIn puts the figures of each area between its marks in a page of Markdown, which stays as it is around them:
//
//	<!-- figures of AREA: begin -->
//	<!-- figures of AREA: end -->
func (r *report) showIn(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	page := string(data)
	for _, a := range r.Areas {
		if len(a.Rows) == 0 {
			continue
		}
		begin, end := fmt.Sprintf("<!-- figures of %s: begin -->\n", a.name), fmt.Sprintf("<!-- figures of %s: end -->", a.name)
		before, rest, one := strings.Cut(page, begin)
		_, after, two := strings.Cut(rest, end)
		if !one || !two {
			return fmt.Errorf("%s: the marks %q and %q are not there: put them where the figures belong", file, strings.TrimSpace(begin), end)
		}
		page = before + begin + a.headlines(r.Head) + end + after
	}
	return os.WriteFile(file, []byte(page), 0o644)
}

// headlines is a short table: for some pieces of work everybody's multiple of the floor.
func (a *area) headlines(head string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, × the floor (allocations); %s:\n\n| work | floor | backstay | others |\n| --- | --- | --- | --- |\n", a.title, head)
	for _, r := range a.Rows {
		if r.Subject == bench.Floor && slices.Contains(bench.Headlines(), r.Case) {
			mine, theirs := a.beside(r.Case)
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.Case, duration(r.NsOp), strings.Join(mine, "; "), strings.Join(theirs, "; "))
		}
	}
	fmt.Fprintln(&b)
	return b.String()
}

// beside tells our own figures of a piece of work, and those of others.
func (a *area) beside(work string) (mine, theirs []string) {
	for _, r := range a.Rows {
		if r.Case != work || r.Subject == bench.Floor {
			continue
		}
		figures := fmt.Sprintf("%.3g (%d)", r.RatioToFloor, r.AllocsOp)
		if variant, ok := strings.CutPrefix(r.Subject, bench.Ours); ok {
			mine = append(mine, strings.TrimSpace(strings.TrimPrefix(variant, ",")+" "+figures))
		} else {
			theirs = append(theirs, r.Subject+" "+figures)
		}
	}
	return mine, theirs
}
