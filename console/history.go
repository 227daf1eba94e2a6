package console

import (
	"math"
	"time"
)

// axis is the time of the latest looks, which all timelines share.
type axis struct {
	times []time.Time // ring
	looks int64       // so many there were
}

func newAxis(size int) axis { return axis{times: make([]time.Time, size)} }

func (a *axis) size() int { return len(a.times) }

func (a *axis) push(t time.Time) {
	a.times[a.looks%int64(len(a.times))] = t
	a.looks++
}

// last is the time of the latest look, zero: there was none.
func (a *axis) last() time.Time {
	if a.looks == 0 {
		return time.Time{}
	}
	return a.times[(a.looks-1)%int64(len(a.times))]
}

// kept is the range of looks that are remembered.
func (a *axis) kept() (from, to int64) {
	return max(0, a.looks-int64(len(a.times))), a.looks
}

// series is the timeline of one metric. One that does not change takes no memory: only a value that differs from the one before makes
// the ring, and a ring that holds one value only is given back.
type series struct {
	ring  []float32
	value float32 // the latest
	same  int     // so many looks in a row had it
	begun bool
}

// push notes the value that the look with the given number found.
func (s *series) push(value float64, look, first int64, size int) {
	v := float32(value)
	switch {
	case !s.begun:
		s.begun, s.value, s.same = true, v, 1
		if look > first { // the metric came later than its object
			s.ring = filled(size, float32(math.NaN()))
		}
	case v == s.value || v != v && s.value != s.value:
		s.same++
	default:
		if s.ring == nil {
			s.ring = filled(size, s.value)
		}
		s.value, s.same = v, 1
	}
	if s.ring == nil {
		return
	}
	if s.same >= size {
		s.ring = nil
		return
	}
	s.ring[look%int64(size)] = v
}

func filled(n int, v float32) []float32 {
	ring := make([]float32, n)
	for i := range ring {
		ring[i] = v
	}
	return ring
}

// at is the value that a look found, NaN where there was none.
func (s *series) at(look, first int64, size int) float32 {
	switch {
	case !s.begun || look < first:
		return float32(math.NaN())
	case s.ring != nil:
		return s.ring[look%int64(size)]
	default:
		return s.value
	}
}

// rateOver is over how many looks the rate of a counter is taken.
const rateOver = 10

// mean is that of the latest n values, to three digits, so that it comes to rest.
func (s *series) mean(n int, look int64, size int) float64 {
	if s.ring == nil {
		return rounded(float64(s.value))
	}
	sum, count := 0.0, 0.0
	for at := max(0, look-int64(min(n, size))+1); at <= look; at++ {
		if v := float64(s.ring[at%int64(size)]); v == v {
			sum += v
			count++
		}
	}
	if count == 0 {
		return 0
	}
	return rounded(sum / count)
}

func rounded(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	scale := math.Pow(10, 2-math.Floor(math.Log10(math.Abs(v))))
	if math.IsInf(scale, 0) || scale == 0 {
		return 0
	}
	return math.Round(v*scale) / scale
}
