package kafkapubsub

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

func newLane(from int64) *lane {
	return &lane{epoch: 1, floor: from, expect: from, high: from, past: past{floor: from, high: from}}
}

// handOut plays the receiver.
func handOut(r *receiver, l *lane, depth int, until time.Duration) *delivery {
	place, ok := l.take(depth)
	if !ok {
		return nil
	}
	d := &delivery{r: r, lane: l, place: place, until: until}
	e := l.at(place)
	e.attempts++
	e.held = d
	l.held++
	l.high = max(l.high, e.offset+1)
	return d
}

// TestGuaranteeFloorNeverPassesAnUnsettledRecord plays random members against a set of what is settled.
func TestGuaranteeFloorNeverPassesAnUnsettledRecord(t *testing.T) {
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		ordered := seed%2 == 0
		depth := 0
		if ordered {
			depth = 5
		}
		l, r := newLane(0), &receiver{ordered: ordered}
		settled := make(map[int64]bool)
		var given []*delivery
		offset, clock := int64(0), time.Duration(0)
		for range 400 {
			clock++
			switch rnd.IntN(7) {
			case 0, 1: // with gaps, as after compaction
				offset += 1 + int64(rnd.IntN(10)/9)
				l.push(&kgo.Record{Offset: offset})
			case 2, 3:
				if d := handOut(r, l, depth, clock+50); d != nil {
					require.False(t, settled[l.at(d.place).offset], "a settled record is handed out")
					given = append(given, d)
				}
			case 4, 5:
				if len(given) > 0 {
					i := rnd.IntN(len(given))
					if d := given[i]; d.place >= l.first {
						settled[l.at(d.place).offset] = true
					}
					l.settle(given[i])
				}
			case 6:
				l.expire(clock, ordered)
			}
			require.LessOrEqual(t, l.held, len(given))
			if ordered {
				require.LessOrEqual(t, l.held, depth)
			}
			for p := l.first; p < l.end; p++ {
				e := l.at(p)
				if settled[e.offset] != (e.rec == nil) || e.rec != nil && l.floor > e.offset {
					t.Fatalf("offset %d, settled %v: floor %d, entry %+v", e.offset, settled[e.offset], l.floor, e)
				}
			}
			require.GreaterOrEqual(t, offset+1, l.floor)
			if l.size() == 0 {
				require.Equal(t, l.expect, l.floor, "everything is settled")
			} else {
				require.NotNil(t, l.at(l.first).rec, "the floor lags behind what is settled")
			}
		}
		if seed%3 == 0 { // the next member knows the same
			next := &lane{epoch: 1, past: decodePast(l.floor, l.metadata()), floor: l.floor, expect: l.floor}
			for p := l.first; p < l.end; p++ {
				next.push(&kgo.Record{Offset: l.at(p).offset})
			}
			for d := handOut(r, next, 0, 1<<60); d != nil; d = handOut(r, next, 0, 1<<60) {
				e := next.at(d.place)
				require.False(t, settled[e.offset])
				require.Equal(t, e.offset < l.high, e.attempts > 1, "offset %d, delivered up to %d", e.offset, l.high)
				settled[e.offset] = true
				next.settle(d)
			}
			require.Equal(t, next.expect, next.floor)
		}
	}
}

// TestOrderedLaneBeginsAnew checks that a lost lease makes all that is unsettled come again, in order.
func TestOrderedLaneBeginsAnew(t *testing.T) {
	l, r := newLane(10), &receiver{ordered: true}
	for o := range int64(5) {
		l.push(&kgo.Record{Offset: 10 + o})
	}
	var given []*delivery
	for range 4 {
		given = append(given, handOut(r, l, 10, 100))
	}
	l.settle(given[1])
	given[2].until = 1
	require.True(t, l.expire(50, true))
	require.EqualValues(t, 2, l.epoch)
	require.Zero(t, l.held)
	for _, want := range []int64{10, 12, 13, 14} {
		d := handOut(r, l, 10, 100)
		require.Equal(t, want, l.at(d.place).offset)
	}
	require.True(t, given[0].stale())
	require.Nil(t, handOut(r, l, 10, 100))
	l.settle(given[0]) // late, and still true
	require.EqualValues(t, 12, l.floor)
}

func TestMetadataAreBounded(t *testing.T) {
	l, r := newLane(0), &receiver{}
	for o := range int64(maxAhead + pollMost) {
		l.push(&kgo.Record{Offset: 3 * o})
	}
	for i := 0; ; i++ {
		d := handOut(r, l, 0, 1)
		if d == nil {
			break
		}
		l.at(d.place).attempts = 1 << 20
		if i%2 == 1 {
			l.settle(d)
		}
	}
	text := l.metadata()
	require.LessOrEqual(t, len(text), maxMetadata)
	p := decodePast(l.floor, text)
	require.True(t, p.settled(3))
	require.False(t, p.settled(6))
	require.False(t, p.settled(0))
	require.Equal(t, 1<<20, p.attempts(6))
	require.Zero(t, p.attempts(l.high))
}

func TestForeignMetadataMeanNothing(t *testing.T) {
	for _, text := range []string{"", "consumer-1-ab", marker, marker + "!!", marker + "_____________", marker + "AQ"} {
		p := decodePast(7, text)
		require.False(t, p.settled(7), text)
		require.Zero(t, p.attempts(7), text)
	}
}

func FuzzDecodePast(f *testing.F) {
	f.Add(int64(0), "")
	f.Add(int64(5), "AgEBAv8")
	f.Fuzz(func(t *testing.T, floor int64, text string) {
		if floor < 0 || floor > 1<<60 {
			return
		}
		p := decodePast(floor, marker+text)
		if p.settled(floor-1) || p.attempts(floor-1) != 0 || p.attempts(floor) < 0 {
			t.Errorf("what is below the floor %d has a past in %q", floor, text)
		}
		_ = p.settled(floor + int64(len(text))*8)
	})
}
