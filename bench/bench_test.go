package bench_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/bench"
	"github.com/backstay-go/backstay/bench/cases"
)

func BenchmarkAll(b *testing.B) {
	for _, c := range bench.Cases() {
		b.Run(c.Area+"/"+c.Name+"/"+c.Subject, c.Run)
	}
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
	for _, s := range cases.Subjects() {
		named[s.Name] = true
	}
	version := regexp.MustCompile(`\d+\.\d+\.\d+`)
	for name := range named {
		if v := version.FindString(name); v != "" {
			require.Regexp(t, ` v`+regexp.QuoteMeta(v)+`\b`, string(gomod), name)
		}
	}
}
