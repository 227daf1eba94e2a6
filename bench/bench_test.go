package bench_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/bench"
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
