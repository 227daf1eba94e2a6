package console

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestASeriesTakesMemoryOnlyWhileItChanges(t *testing.T) {
	const size = 8
	var s series
	look := int64(0)
	push := func(v float64) {
		s.push(v, look, 0, size)
		look++
	}
	for range 20 {
		push(3)
	}
	require.Nil(t, s.ring)
	push(4)
	require.Len(t, s.ring, size)
	for range size - 2 {
		push(4)
	}
	require.NotNil(t, s.ring, "the 3 is remembered still")
	push(4)
	require.Nil(t, s.ring)
	require.InDelta(t, 4, s.at(look-1, 0, size), 0)
}
