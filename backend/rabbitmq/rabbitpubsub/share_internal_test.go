package rabbitpubsub

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestShareOfLanes(t *testing.T) {
	for _, c := range []struct {
		lanes, held, members, wanting int
		least, most                   int // lanes given up, of which chance may decide
		wants                         bool
	}{
		{lanes: 8, held: 8, members: 1},
		{lanes: 8, held: 8, members: 2, wanting: 1, least: 4, most: 4},
		{lanes: 8, held: 8, members: 3, least: 5, most: 5},
		{lanes: 8, held: 4, members: 3, least: 1, most: 1},
		{lanes: 8, held: 3, members: 3},
		{lanes: 8, held: 3, members: 3, wanting: 1, most: 1},
		{lanes: 8, held: 2, members: 3, wanting: 1},
		{lanes: 8, held: 1, members: 3, wants: true},
		{lanes: 2, held: 2, members: 3, wanting: 1, least: 1, most: 1},
		{lanes: 2, members: 3},
	} {
		r := &receiver{base: time.Now()}
		for lane := range c.lanes {
			src := &source{r: r, lane: lane}
			src.stream = newStream(src, nil, nil, 1)
			if lane < c.held {
				src.stream.base = 2
			}
			r.sources = append(r.sources, src)
		}
		require.Equal(t, c.wants, r.share(attendance{c.members, c.wanting}), c)
		given := 0
		for _, src := range r.sources {
			if src.stream.yielding {
				given++
			}
		}
		require.GreaterOrEqual(t, given, c.least, c)
		require.LessOrEqual(t, given, c.most, c)
	}
}
