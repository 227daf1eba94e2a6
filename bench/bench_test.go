package bench_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/bench"
	"github.com/backstay-go/backstay/bench/cases"
	"github.com/backstay-go/backstay/bench/cases/caches"
	"github.com/backstay-go/backstay/bench/cases/resilience"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := bench.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func BenchmarkAll(b *testing.B) {
	for _, c := range bench.Cases() {
		b.Run(c.Area+"/"+c.Name+"/"+c.Subject, func(b *testing.B) {
			if c.Needs != nil {
				needed(b, c.Needs())
			}
			c.Run(b)
		})
	}
}

func needed(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	require.NotEqual(t, "1", os.Getenv("BACKSTAY_REQUIRE_SERVICES"), err)
	t.Skip(err)
}

func TestEveryPieceOfWorkHasItsFloorFirst(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range bench.Cases() {
		work := c.Area + ", " + c.Name
		if !seen[work] {
			require.Equal(t, bench.Floor, c.Subject, work)
		}
		seen[work] = true
	}
	require.NotEmpty(t, seen)
}

func TestEveryHeadlineIsACase(t *testing.T) {
	for _, name := range bench.Headlines() {
		require.True(t, slices.ContainsFunc(bench.Cases(), func(c bench.Case) bool { return c.Name == name }), name)
	}
}

func TestEveryTargetNamesTwoSubjectsOfItsCase(t *testing.T) {
	subjects := map[string][]string{}
	for _, c := range bench.Cases() {
		subjects[c.Name] = append(subjects[c.Name], c.Subject)
	}
	for _, target := range bench.Targets() {
		require.Contains(t, subjects[target.Case], target.Subject, target.Case)
		require.Contains(t, subjects[target.Case], target.Against, target.Case)
	}
}

func TestPeersAreNamedWithTheVersionThatIsRequired(t *testing.T) {
	gomod, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	named := map[string]bool{}
	for _, c := range bench.Cases() {
		named[c.Subject] = true
	}
	for _, suite := range []*cases.Suite{resilience.Suite(), caches.Suite()} {
		for _, s := range suite.Subjects {
			named[s.Name] = true
		}
	}
	version := regexp.MustCompile(`\d+\.\d+\.\d+`)
	for name := range named {
		for _, v := range version.FindAllString(name, -1) {
			require.Regexp(t, ` v`+regexp.QuoteMeta(v)+`\b`, string(gomod), name)
		}
	}
}

// TestHitRatioIsThatOfTheEngine is a short form of the hit ratios. An LRU would fall short by three points.
func TestHitRatioIsThatOfTheEngine(t *testing.T) {
	ratios, skipped := bench.Ratios(30_000, 1)
	for _, err := range skipped {
		t.Log("skipped:", err)
	}
	require.NotEmpty(t, ratios)
	for _, r := range ratios {
		require.True(t, r.Percent >= 0 && r.Percent <= 100, "%s, %s: %f", r.Case, r.Subject, r.Percent)
	}
	mean, _ := bench.Shortfall(ratios)
	require.InDelta(t, 0, mean, 1.5, "points")
}
