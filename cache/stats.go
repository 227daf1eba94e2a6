package cache

import (
	"iter"
	"sync/atomic"
	"time"
	"unsafe"
)

// Stats is a snapshot of what a [Cache] has done since it was made. The counters are read one after the other, so
// they may be apart by the calls that ran meanwhile.
type Stats struct {
	// Hits is how many calls of Get found an entry.
	Hits uint64
	// Misses is how many calls of Get did not, whether they then led a load, joined one or were refused.
	Misses uint64
	// Loads is how many times the loader was called.
	Loads uint64
	// LoadFailures is how many of the Loads ended in an error or a panic.
	LoadFailures uint64
	// LoadTime is how long the finished Loads took together.
	LoadTime time.Duration
	// Fenced is how many loaded values were not stored because of a newer Set or Delete.
	Fenced uint64
	// StoreFailures is how many calls of the store failed.
	StoreFailures uint64
	// Loading is how many keys are being resolved now.
	Loading int
	// Entries is about how many entries the built-in store holds, expired ones included; zero for another store.
	Entries int
	// Evictions is how many entries the built-in store dropped for want of room; zero for another store.
	Evictions uint64
}

// Stats returns a snapshot. It may be called at any time and does not slow down hits.
func (c *Cache[K, V]) Stats() Stats {
	s := Stats{
		Hits:          c.hits.value(),
		Misses:        c.misses.Load(),
		Loads:         c.loads.Load(),
		LoadFailures:  c.loadFailures.Load(),
		LoadTime:      time.Duration(c.loadTime.Load()),
		Fenced:        c.fenced.Load(),
		StoreFailures: c.storeFailures.Load(),
		Loading:       c.flights.count(),
	}
	if c.memory != nil {
		s.Entries = c.memory.entries.EstimatedSize()
		s.Evictions = c.memory.evicted.Load()
	}
	return s
}

// Describe returns what the console and telemetry show: the kind "cache", the name and the Config in force.
func (c *Cache[K, V]) Describe() (kind, name string, config any) {
	cfg := c.Config()
	return "cache", cfg.Name, cfg
}

// Metrics yields the numbers of Stats under their metric names.
func (c *Cache[K, V]) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := c.Stats()
		_ = yield("hits_total", float64(s.Hits)) &&
			yield("misses_total", float64(s.Misses)) &&
			yield("loads_total", float64(s.Loads)) &&
			yield("load_failures_total", float64(s.LoadFailures)) &&
			yield("load_time_seconds_total", s.LoadTime.Seconds()) &&
			yield("fenced_total", float64(s.Fenced)) &&
			yield("store_failures_total", float64(s.StoreFailures)) &&
			yield("evictions_total", float64(s.Evictions)) &&
			yield("loading", float64(s.Loading)) &&
			yield("entries", float64(s.Entries))
	}
}

// counter is a count spread over several cache lines, so that processors that count hits at the same time do not wait
// for each other.
type counter [16]struct {
	_ [56]byte
	n atomic.Uint64
}

// inc counts one. The address of a local variable picks the slot: goroutines have stacks of their own, so each keeps to
// one cache line, which a random slot would make travel between processors on every call.
func (c *counter) inc() {
	var local byte
	stack := uint64(uintptr(unsafe.Pointer(&local)) >> 11)
	c[stack*0x9E3779B97F4A7C15>>60].n.Add(1) // Fibonacci hashing to 4 bits
}

func (c *counter) value() (sum uint64) {
	for i := range c {
		sum += c[i].n.Load()
	}
	return sum
}
