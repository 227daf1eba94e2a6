package cache

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	// clockResolution is how often a hit's clock reads the time: a precise clock would be a third of the cost of a hit.
	clockResolution = 10 * time.Millisecond
	// never is the instant that does not come.
	never = math.MaxInt64
)

// clock counts nanoseconds, precisely and on the scale of the coarse clock of the memory.
type clock struct {
	base   time.Time
	offset int64
}

func (c clock) now() int64 { return c.offset + int64(time.Since(c.base)) }

func (c clock) at(t time.Time) int64 { return c.offset + int64(t.Sub(c.base)) }

// after is the instant that is d after t.
func after(t int64, d time.Duration) int64 {
	if sum := t + int64(d); sum >= t {
		return sum
	}
	return never
}

// entry is what is known of a key, with instants of the cache's clock. All but soft is fixed.
type entry[V any] struct {
	soft    atomic.Int64 // until when a read has nothing to do but to return value
	value   V
	stored  int64
	fresh   int64 // the end of the TTL
	hard    int64 // until when it may be served if the source fails
	local   int64 // until when the store need not be asked
	cost    time.Duration
	version uint64
	weight  uint32
	absent  bool
}

func (e *entry[V]) freshAt(now int64) bool { return e != nil && now < e.fresh && now < e.local }

func (e *entry[V]) usableAt(now int64) bool { return e != nil && now < e.hard && !e.absent }

// pause keeps hits from asking for a refresh of e until then.
func (e *entry[V]) pause(until int64) {
	if e != nil && !e.absent {
		e.soft.Store(min(until, e.fresh, e.local))
	}
}

func (e *entry[V]) age(now int64) time.Duration { return time.Duration(max(0, now-e.stored)) }

// held is how the memory keeps an entry. What most hits need lies beside the key: to follow the pointer would be a line
// of the processor's cache more.
type held[V any] struct {
	value V
	soft  int64 // the entry's at first; a pause moves only that
	entry *entry[V]
}

// memory is the in-process engine with its clock and the queue of what it evicts.
type memory[K comparable, V any] struct {
	entries *otter.Cache[K, held[V]]
	clock   *otter.CoarseClock
	evicted atomic.Uint64
	gone    *evictions[K, V] // nil when nobody wants to know
	_       [96]byte         // every hit reads the above: whoever writes to a neighbour must not get in its way
}

func newMemory[K comparable, V any](cfg Config, onEvict func(K, V, string)) *memory[K, V] {
	m := &memory[K, V]{clock: otter.NewCoarseClock(clockResolution)}
	if onEvict != nil {
		m.gone = newEvictions(onEvict)
	}
	opts := &otter.Options[K, held[V]]{
		MaximumSize:      cfg.MaxEntries,
		Clock:            m.clock,
		ExpiryCalculator: otter.ExpiryWritingFunc(lifetime[K, V]),
		OnAtomicDeletion: m.removed,
	}
	if cfg.MaxWeight > 0 {
		opts.MaximumWeight = uint64(cfg.MaxWeight)
		opts.Weigher = func(_ K, h held[V]) uint32 { return h.entry.weight }
	}
	m.entries = otter.Must(opts)
	return m
}

// precise is a clock on the scale of the memory's coarse one, which has only just been read.
func (m *memory[K, V]) precise() clock { return clock{base: time.Now(), offset: m.clock.NowNano()} }

// lifetime lets an entry go when nothing more can be done with it.
func lifetime[K comparable, V any](e otter.Entry[K, held[V]]) time.Duration {
	hard := e.Value.entry.hard
	if hard == never {
		return math.MaxInt64
	}
	return time.Duration(max(1, hard-e.SnapshotAtNano))
}

// removed is called under a lock of the engine.
func (m *memory[K, V]) removed(d otter.DeletionEvent[K, held[V]]) {
	if d.Cause == otter.CauseOverflow {
		m.evicted.Add(1)
	}
	if m.gone == nil || d.Value.entry.absent {
		return
	}
	switch d.Cause {
	case otter.CauseOverflow:
		m.gone.add(eviction[K, V]{d.Key, d.Value.value, "overflow"})
	case otter.CauseExpiration:
		m.gone.add(eviction[K, V]{d.Key, d.Value.value, "expired"})
	}
}

// get counts towards how often the key is used; peek does not. plain says that a read has nothing to do but to return
// the value.
func (m *memory[K, V]) get(key K) (h held[V], plain bool) {
	if m == nil {
		return h, false
	}
	h, ok := m.entries.GetIfPresent(key)
	if !ok {
		return h, false
	}
	now := m.clock.NowNano()
	return h, now < h.soft || now < h.entry.soft.Load()
}

func (m *memory[K, V]) peek(key K) *entry[V] {
	if m == nil {
		return nil
	}
	e, _ := m.entries.GetEntryQuietly(key)
	return e.Value.entry
}

func (m *memory[K, V]) put(key K, e *entry[V]) {
	if m != nil {
		m.entries.Set(key, held[V]{value: e.value, soft: e.soft.Load(), entry: e})
	}
}

func (m *memory[K, V]) drop(key K) {
	if m != nil {
		m.entries.Invalidate(key)
	}
}

func (m *memory[K, V]) clear() {
	if m != nil {
		m.entries.InvalidateAll()
	}
}

// resize applies what a Config says of the size.
func (m *memory[K, V]) resize(cfg Config) {
	if limit := uint64(max(cfg.MaxEntries, cfg.MaxWeight)); m != nil && m.entries.GetMaximum() != limit {
		m.entries.SetMaximum(limit)
	}
}

// close ends the goroutines, but for upkeep under way, which ends by itself.
func (m *memory[K, V]) close() {
	if m == nil {
		return
	}
	m.entries.StopAllGoroutines()
	m.clock.Stop()
	if m.gone != nil {
		m.gone.close()
	}
}
