package rabbitpubsub

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A consumer is fast as soon as it has taken enough, and not when that took it long.
func TestPace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		took  []int // messages at a time
		every time.Duration
		fast  bool
	}{
		{"at once", []int{16, 16, 16, 16}, time.Millisecond, true},
		{"not enough yet", []int{16, 16, 16, 15}, time.Millisecond, false},
		{"over two windows", []int{30, 34}, paceWindow, false},
		{"in one window", []int{64}, paceWindow, true},
		{"slow", []int{16, 16, 16, 16}, paceWindow, false},
		{"after a rest", []int{64}, 4 * paceWindow, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p pace
			p.asked(16, 1000)
			changes := 0
			for i, n := range c.took {
				if p.took(n, time.Duration(i+1)*c.every) {
					changes++
				}
			}
			require.Equal(t, c.fast, p.fast)
			if c.fast {
				require.Equal(t, 1, changes)
				require.Equal(t, 1000, p.prefetch())
			} else {
				require.Zero(t, changes)
				require.Equal(t, 16, p.prefetch())
			}
		})
	}
}
