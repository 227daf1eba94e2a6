package hedge

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	perOctave    = 8 // buckets from one power of two to the next
	octaveBits   = 3
	buckets      = (64 - octaveBits) * perOctave
	generation   = 1000 // latencies in a full histogram
	warmUp       = 100  // latencies that make a quantile
	betweenLooks = 50   // latencies from one computation of the quantile to the next
)

// latencies learns a quantile of the latest latencies: those in the histogram being filled, and in the one filled before.
type latencies struct {
	estimate atomic.Int64 // of the quantile, in nanoseconds; 0 until it is known

	mu            sync.Mutex
	recent, older histogram
}

type histogram struct {
	total  int
	counts [buckets]uint32
}

func (l *latencies) record(latency time.Duration, quantile float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent.counts[bucketOf(latency)]++
	l.recent.total++
	if l.recent.total == generation {
		l.older, l.recent = l.recent, histogram{}
	}
	if l.recent.total%betweenLooks == 0 {
		l.look(quantile)
	}
}

// relearn computes another quantile of what is known.
func (l *latencies) relearn(quantile float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look(quantile)
}

// look takes the end of the bucket: a point inside might lie below calls that all take the same time, and hedge every one.
func (l *latencies) look(quantile float64) {
	total := l.recent.total + l.older.total
	if total < warmUp || quantile <= 0 {
		return
	}
	rank := int(math.Ceil(quantile * float64(total)))
	for i := range buckets {
		if rank -= int(l.recent.counts[i] + l.older.counts[i]); rank <= 0 {
			l.estimate.Store(int64(upperEdge(i)))
			return
		}
	}
}

// bucketOf counts nanoseconds one by one below perOctave; above, the bits after the leading one say which part of the octave it is.
func bucketOf(d time.Duration) int {
	n := uint64(max(0, d))
	if n < perOctave {
		return int(n)
	}
	shift := bits.Len64(n) - octaveBits - 1
	return (shift+1)*perOctave + int(n>>shift)%perOctave
}

// upperEdge is the longest duration of a bucket.
func upperEdge(bucket int) time.Duration {
	if bucket < perOctave {
		return time.Duration(bucket)
	}
	shift := bucket/perOctave - 1
	return time.Duration(uint64(perOctave+bucket%perOctave+1)<<shift - 1)
}
