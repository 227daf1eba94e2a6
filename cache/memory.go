package cache

import (
	"context"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	// clockResolution is how often the store reads the time: a precise clock would be a third of the cost of a hit.
	clockResolution = 10 * time.Millisecond
	// stripes is how many locks share the keys' writes.
	stripes = 64
)

// memory is the built-in store: an otter cache, and the leases of the keys being loaded beside it.
type memory[K comparable, V any] struct {
	entries *otter.Cache[K, Entry[V]]
	clock   *otter.CoarseClock
	evicted atomic.Uint64
	seed    maphash.Seed
	stripes [stripes]stripe[K, V]
}

// stripe orders the writes of its keys with their fills.
type stripe[K comparable, V any] struct {
	mu     sync.Mutex
	leases map[K]*memoryLease[K, V]
	_      [64]byte // keeps neighbouring locks off one cache line
}

func newMemory[K comparable, V any](maxEntries int) *memory[K, V] {
	m := &memory[K, V]{clock: otter.NewCoarseClock(clockResolution), seed: maphash.MakeSeed()}
	for i := range m.stripes {
		m.stripes[i].leases = make(map[K]*memoryLease[K, V])
	}
	m.entries = otter.Must(&otter.Options[K, Entry[V]]{
		MaximumSize:      maxEntries,
		Clock:            m.clock,
		ExpiryCalculator: otter.ExpiryWritingFunc(lifetime[K, V]),
		OnAtomicDeletion: m.countEviction,
	})
	return m
}

func lifetime[K comparable, V any](e otter.Entry[K, Entry[V]]) time.Duration {
	if e.Value.TTL <= 0 {
		return math.MaxInt64
	}
	return e.Value.TTL
}

func (m *memory[K, V]) countEviction(e otter.DeletionEvent[K, Entry[V]]) {
	if e.Cause == otter.CauseOverflow {
		m.evicted.Add(1)
	}
}

func (m *memory[K, V]) stripe(key K) *stripe[K, V] {
	return &m.stripes[maphash.Comparable(m.seed, key)%stripes]
}

func (m *memory[K, V]) Get(_ context.Context, key K) (Entry[V], bool, error) {
	e, ok := m.entries.GetIfPresent(key)
	return e, ok, nil
}

func (m *memory[K, V]) Lease(_ context.Context, key K) (Entry[V], Lease[V], error) {
	s := m.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	// Quietly: the Get before has been counted towards the key's frequency.
	if e, ok := m.entries.GetEntryQuietly(key); ok {
		return e.Value, nil, nil
	}
	l := &memoryLease[K, V]{store: m, stripe: s, key: key}
	s.leases[key] = l
	return Entry[V]{}, l, nil
}

func (m *memory[K, V]) Set(_ context.Context, key K, e Entry[V]) error {
	s := m.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, key)
	m.entries.Set(key, e)
	return nil
}

func (m *memory[K, V]) Delete(_ context.Context, key K) error {
	s := m.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, key)
	m.entries.Invalidate(key)
	return nil
}

// close ends the store's goroutines, but for upkeep under way, which ends by itself.
func (m *memory[K, V]) close() {
	m.entries.StopAllGoroutines()
	m.clock.Stop()
}

// memoryLease is valid for as long as its stripe holds it.
type memoryLease[K comparable, V any] struct {
	store  *memory[K, V]
	stripe *stripe[K, V]
	key    K
}

func (l *memoryLease[K, V]) Fill(_ context.Context, e Entry[V]) (bool, error) {
	l.stripe.mu.Lock()
	defer l.stripe.mu.Unlock()
	if !l.end() {
		return false, nil
	}
	l.store.entries.Set(l.key, e)
	return true, nil
}

func (l *memoryLease[K, V]) Release(context.Context) error {
	l.stripe.mu.Lock()
	defer l.stripe.mu.Unlock()
	l.end()
	return nil
}

// end ends the lease and reports whether it was valid. The stripe is locked.
func (l *memoryLease[K, V]) end() bool {
	if l.stripe.leases[l.key] != l {
		return false
	}
	delete(l.stripe.leases, l.key)
	return true
}
