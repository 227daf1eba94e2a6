package cache

import (
	"iter"
	"sync/atomic"
	"time"
	"unsafe"
)

// Stats is a snapshot of what a cache has done since it was made. The counters are read one after the other, so they
// may be apart by the calls that ran meanwhile.
type Stats struct {
	// Hits is how many reads found a fresh entry.
	Hits uint64
	// Misses is how many reads did not, whether they then led a load, joined one, got a stale entry or were refused.
	Misses uint64
	// Loads is how many times the loader was called, or the batch loader.
	Loads uint64
	// LoadFailures is how many of the Loads ended in a panic or an error other than ErrNotFound.
	LoadFailures uint64
	// LoadTime is how long the finished Loads took together.
	LoadTime time.Duration
	// Refreshes is how many of the loads were begun in the background, while the old entry was served.
	Refreshes uint64
	// StaleServed is how many of the Misses were answered by an old entry because the source failed.
	StaleServed uint64
	// NegativeHits is how many reads were answered by the knowledge that the source has nothing.
	NegativeHits uint64
	// Fenced is how many loaded values were not kept because of a newer Set, Delete or Invalidate.
	Fenced uint64
	// StoreFailures is how many calls of the store failed.
	StoreFailures uint64
	// StoreAway says that the store has failed and is not asked until it answers again.
	StoreAway bool
	// PendingDeletes is how many keys are to be deleted from the store once it answers again.
	PendingDeletes int
	// Loading is how many keys are being resolved now.
	Loading int
	// Entries is about how many entries the memory holds, expired ones included.
	Entries int
	// Evictions is how many entries the memory has dropped for want of room.
	Evictions uint64
}

// Stats returns a snapshot. It may be called at any time and does not slow down hits.
func (e *engine[K, V]) Stats() Stats {
	s := Stats{
		Hits:         e.hits.value(),
		Misses:       e.misses.Load(),
		Loads:        e.loads.Load(),
		LoadFailures: e.loadFailures.Load(),
		LoadTime:     time.Duration(e.loadTime.Load()),
		Refreshes:    e.refreshes.Load(),
		StaleServed:  e.stale.Load(),
		NegativeHits: e.negative.Load(),
		Fenced:       e.flights.fenced.Load(),
		Loading:      e.flights.count(),
	}
	if e.store != nil {
		g := e.store.stats()
		s.StoreFailures, s.StoreAway, s.PendingDeletes = g.Failures, g.Away, g.Pending
	}
	if e.memory != nil {
		s.Entries = e.memory.entries.EstimatedSize()
		s.Evictions = e.memory.evicted.Load()
	}
	return s
}

// Describe returns what the console and telemetry show: the kind "cache", the name and the Config in force.
func (e *engine[K, V]) Describe() (kind, name string, config any) {
	cfg := e.Config()
	return "cache", cfg.Name, cfg
}

// Metrics yields the numbers of Stats under their metric names.
func (e *engine[K, V]) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s, away := e.Stats(), 0.0
		if s.StoreAway {
			away = 1
		}
		_ = yield("hits_total", float64(s.Hits)) &&
			yield("misses_total", float64(s.Misses)) &&
			yield("loads_total", float64(s.Loads)) &&
			yield("load_failures_total", float64(s.LoadFailures)) &&
			yield("load_time_seconds_total", s.LoadTime.Seconds()) &&
			yield("refreshes_total", float64(s.Refreshes)) &&
			yield("stale_served_total", float64(s.StaleServed)) &&
			yield("negative_hits_total", float64(s.NegativeHits)) &&
			yield("fenced_total", float64(s.Fenced)) &&
			yield("store_failures_total", float64(s.StoreFailures)) &&
			yield("store_away", away) &&
			yield("pending_deletes", float64(s.PendingDeletes)) &&
			yield("evictions_total", float64(s.Evictions)) &&
			yield("loading", float64(s.Loading)) &&
			yield("entries", float64(s.Entries))
	}
}

// counter is a count spread over several cache lines, so that processors that count hits at the same time do not wait
// for each other.
type counter [32]struct {
	_ [120]byte // processors fetch cache lines in pairs
	n atomic.Uint64
}

// inc counts one. The address of a local variable picks the slot: goroutines have stacks of their own, so each keeps to
// one cache line, which a random slot would make travel between processors on every call.
func (c *counter) inc() {
	var local byte
	stack := uint64(uintptr(unsafe.Pointer(&local)) >> 11)
	c[stack*0x9E3779B97F4A7C15>>59].n.Add(1) // Fibonacci hashing to 5 bits
}

func (c *counter) value() (sum uint64) {
	for i := range c {
		sum += c[i].n.Load()
	}
	return sum
}
