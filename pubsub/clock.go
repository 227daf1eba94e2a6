package pubsub

import (
	"math"
	"time"
)

// clock tells the time since it was made: read in half the time of time.Now, and held in a third of the memory.
type clock struct{ origin time.Time }

func newClock() clock { return clock{time.Now()} }

func (c clock) now() time.Duration { return time.Since(c.origin) }

// time is the time of an age.
func (c clock) time(age time.Duration) time.Time { return c.origin.Add(age) }

// later is now+d, or the end of time.
func later(now, d time.Duration) time.Duration {
	if d > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + d
}
