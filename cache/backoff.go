package cache

import (
	"math"
	"time"
)

// forgetAbove is how many failing keys of one stripe are remembered. The source is asked for the others.
const forgetAbove = 1024

// backoff is how long the source is left alone after a failure.
type backoff struct {
	now          int64
	delay, limit time.Duration // off if delay is not positive
	random       float64
}

// failing are the keys whose last load failed.
type failing[K comparable] struct {
	keys map[K]streak
	full int // at what size to look for what is over
}

type streak struct {
	count int // zero: nothing has failed, but somebody else is refreshing the key
	until int64
}

// until is when the source may be asked for a key that has failed.
func (f *failing[K]) until(key K) int64 {
	if streak := f.keys[key]; streak.count > 0 {
		return streak.until
	}
	return math.MinInt64
}

// paused reports whether there is no point in a refresh of key yet.
func (f *failing[K]) paused(key K, now int64) bool { return now < f.keys[key].until }

func (f *failing[K]) forget(key K) {
	if len(f.keys) > 0 {
		delete(f.keys, key)
	}
}

func (f *failing[K]) forgetAll() { f.keys = nil }

// add counts a failure and returns until when the source is left alone: twice as long as the last time, and up to half
// as long again, so that keys and processes that failed together do not ask again together.
func (f *failing[K]) add(key K, b backoff) int64 {
	if b.delay <= 0 {
		return b.now
	}
	last := f.keys[key].count
	delay := b.limit
	if last < 32 && b.delay < b.limit>>last {
		delay = b.delay << last
	}
	delay = min(delay+time.Duration(b.random/2*float64(delay)), b.limit)
	until := after(b.now, delay)
	if f.room(b) {
		f.keys[key] = streak{last + 1, until}
	}
	return until
}

// pause lets refreshes of key rest for the shortest delay and returns until when.
func (f *failing[K]) pause(key K, b backoff) int64 {
	until := after(b.now, max(b.delay, clockResolution))
	if f.room(b) {
		f.keys[key] = streak{f.keys[key].count, until}
	}
	return until
}

// room makes room for one more, if it can: a key that has not been tried again for the longest delay is over.
func (f *failing[K]) room(b backoff) bool {
	if f.keys == nil {
		f.keys, f.full = make(map[K]streak), 64
	}
	if len(f.keys) >= f.full {
		for key, streak := range f.keys {
			if after(streak.until, b.limit) < b.now {
				delete(f.keys, key)
			}
		}
		f.full = min(max(64, 2*len(f.keys)), forgetAbove)
	}
	return len(f.keys) < forgetAbove
}
