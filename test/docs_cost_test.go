package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	costEnd  = "<!-- cost: end -->\n"
	costHead = "| work | subject | × floor | allocs |\n| --- | --- | --- | --- |\n"
)

// costBegin names the page of figures, and then the works of which the table that follows tells.
var costBegin = regexp.MustCompile(`<!-- cost, from ([a-z]+-tables\.md): (.+) -->\n`)

// TestThePatternPagesTellTheCostsOfTheTables compares the small tables of the pages of patterns with the pages that bench/report makes, from
// which -update takes them anew: the floor of each work, what is ours, and the best of the others.
func TestThePatternPagesTellTheCostsOfTheTables(t *testing.T) {
	for _, page := range patternPages(t) {
		text := read(t, page)
		current := withCosts(t, text, func(tables string) string { return read(t, "../docs/"+tables) })
		if *update && current != text {
			require.NoError(t, os.WriteFile(page, []byte(current), 0o600))
			continue
		}
		require.Equal(t, current, text, "%s: run go test ./test -run TestThePatternPagesTellTheCostsOfTheTables -update", filepath.Base(page))
	}
}

// withCosts is a page with what belongs between its marks.
func withCosts(t *testing.T, page string, tables func(name string) string) string {
	t.Helper()
	var text strings.Builder
	for {
		mark := costBegin.FindStringSubmatchIndex(page)
		if mark == nil {
			text.WriteString(page)
			return text.String()
		}
		text.WriteString(page[:mark[1]] + costHead)
		figures := tables(page[mark[2]:mark[3]])
		for work := range strings.SplitSeq(page[mark[4]:mark[5]], "; ") {
			text.WriteString(costOf(t, figures, work))
		}
		_, rest, found := strings.Cut(page[mark[1]:], costEnd)
		require.True(t, found, "a page lacks %q", costEnd)
		text.WriteString(costEnd)
		page = rest
	}
}

// costOf are the rows of a work: its floor, ours, and the one of the others that costs least.
func costOf(t *testing.T, figures, work string) string {
	t.Helper()
	_, cost, found := strings.Cut(figures, "\n## Cost\n")
	require.True(t, found)
	_, rows, found := strings.Cut(cost, "\n| "+work+" | floor: ")
	require.True(t, found, "no figures of %q", work)
	floor, rows, _ := strings.Cut(rows, "\n")
	kept := "| " + work + " | floor: " + floor + "\n"
	best, least := "", 0.0
	for row := range strings.Lines(rows) {
		if !strings.HasPrefix(row, "| | ") {
			break
		}
		ratio, err := strconv.ParseFloat(strings.TrimSpace(strings.Split(row, "|")[3]), 64)
		require.NoError(t, err, row)
		switch {
		case strings.HasPrefix(row, "| | backstay"):
			kept += row
		case best == "" || ratio < least:
			best, least = row, ratio
		}
	}
	return kept + best
}

func TestCostsAreTakenFromTheirTable(t *testing.T) {
	figures := "\n## Cost\n\n| hit | floor: 3 ns | 1 | 0 |\n| | a | 4.0 | 0 |\n| | backstay | 10.0 | 1 |\n| | backstay, x | 2.5 | 1 |\n| | b | 3.5 | 0 |\n| miss | floor: 5 ns | 1 | 0 |\n| | c | 1.0 | 0 |\n"
	tables := func(string) string { return figures }
	page := "a\n<!-- cost, from some-tables.md: miss; hit -->\nold\n" + costEnd + "b\n"
	want := "a\n<!-- cost, from some-tables.md: miss; hit -->\n" + costHead +
		"| miss | floor: 5 ns | 1 | 0 |\n| | c | 1.0 | 0 |\n" +
		"| hit | floor: 3 ns | 1 | 0 |\n| | backstay | 10.0 | 1 |\n| | backstay, x | 2.5 | 1 |\n| | b | 3.5 | 0 |\n" + costEnd + "b\n"
	require.Equal(t, want, withCosts(t, page, tables))
	require.Equal(t, want, withCosts(t, want, tables))
}
