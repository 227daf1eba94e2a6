package cache_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/backstay-go/backstay/cache"
)

var errDown = errors.New("store down")

// fakeStore is a Store that keeps the contract, as simple as can be, with a switch and hooks for what a test wants to
// go wrong.
type fakeStore[K comparable, V any] struct {
	mu       sync.Mutex
	held     map[K]fakeEntry[V]
	leases   map[K]*fakeLease[K, V]
	version  uint64
	down     bool
	calls    map[string]int
	watchers map[int]func(K)

	before func(op string, key K) // called first, outside of the lock
	after  func(op string, key K) // called last, outside of the lock
}

type fakeEntry[V any] struct {
	cache.Entry[V]
	stored time.Time
}

func newFakeStore[K comparable, V any]() *fakeStore[K, V] {
	return &fakeStore[K, V]{
		held: map[K]fakeEntry[V]{}, leases: map[K]*fakeLease[K, V]{}, calls: map[string]int{}, watchers: map[int]func(K){},
	}
}

// call runs f under the lock, or fails.
func (s *fakeStore[K, V]) call(ctx context.Context, op string, key K, f func()) error {
	if s.before != nil {
		s.before(op, key)
	}
	if s.after != nil {
		defer s.after(op, key)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[op]++
	if s.down {
		return errDown
	}
	f()
	return nil
}

func (s *fakeStore[K, V]) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *fakeStore[K, V]) count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// get returns the entry with its age. The lock is held.
func (s *fakeStore[K, V]) get(key K) (cache.Entry[V], bool) {
	e, ok := s.held[key]
	e.Age = time.Since(e.stored)
	if !ok || e.TTL > 0 && e.Age >= e.TTL+max(0, e.Keep) {
		delete(s.held, key)
		return cache.Entry[V]{}, false
	}
	return e.Entry, true
}

// put stores the entry. The lock is held.
func (s *fakeStore[K, V]) put(key K, e cache.Entry[V]) {
	s.version++
	e.Version, e.Age = s.version, 0
	s.held[key] = fakeEntry[V]{e, time.Now()}
	s.changed(key)
}

func (s *fakeStore[K, V]) changed(key K) {
	for _, w := range s.watchers {
		w(key)
	}
}

func (s *fakeStore[K, V]) Get(ctx context.Context, key K) (e cache.Entry[V], ok bool, err error) {
	err = s.call(ctx, "Get", key, func() { e, ok = s.get(key) })
	return e, ok, err
}

func (s *fakeStore[K, V]) Lease(ctx context.Context, key K, seen uint64) (g cache.Grant[V], err error) {
	err = s.call(ctx, "Lease", key, func() {
		if e, ok := s.get(key); ok && e.Version != seen {
			g.Entry, g.Found = e, true
			return
		}
		if l := s.leases[key]; l != nil && time.Now().Before(l.until) {
			return
		}
		l := &fakeLease[K, V]{s: s, key: key, until: time.Now().Add(10 * time.Second)}
		if deadline, ok := ctx.Deadline(); ok {
			l.until = deadline
		}
		s.leases[key] = l
		g.Lease = l
	})
	return g, err
}

func (s *fakeStore[K, V]) Set(ctx context.Context, key K, e cache.Entry[V]) error {
	return s.call(ctx, "Set", key, func() {
		delete(s.leases, key)
		s.put(key, e)
	})
}

func (s *fakeStore[K, V]) Delete(ctx context.Context, key K) error {
	return s.call(ctx, "Delete", key, func() {
		delete(s.leases, key)
		delete(s.held, key)
		s.changed(key)
	})
}

func (s *fakeStore[K, V]) Ping(ctx context.Context) error {
	var key K
	return s.call(ctx, "Ping", key, func() {})
}

type fakeLease[K comparable, V any] struct {
	s     *fakeStore[K, V]
	key   K
	until time.Time
}

// end reports whether the lease was valid. The lock is held.
func (l *fakeLease[K, V]) end() bool {
	if l.s.leases[l.key] != l {
		return false
	}
	delete(l.s.leases, l.key)
	return time.Now().Before(l.until)
}

func (l *fakeLease[K, V]) Fill(ctx context.Context, e cache.Entry[V]) (ok bool, err error) {
	err = l.s.call(ctx, "Fill", l.key, func() {
		if ok = l.end(); ok {
			l.s.put(l.key, e)
		}
	})
	return ok, err
}

func (l *fakeLease[K, V]) Release(ctx context.Context) error {
	return l.s.call(ctx, "Release", l.key, func() { l.end() })
}

// watchedStore is a fakeStore that tells of changes, once they have been let through.
type watchedStore[K comparable, V any] struct {
	*fakeStore[K, V]
	lost chan struct{} // each makes the watchers miss something
}

func (s *watchedStore[K, V]) Watch(ctx context.Context, changed func(K), lost func()) error {
	events := make(chan K, 1000)
	s.mu.Lock()
	id := len(s.watchers)
	s.watchers[id] = func(key K) { events <- key }
	s.mu.Unlock()
	lost()
	for {
		select {
		case key := <-events:
			changed(key)
		case <-s.lost:
			lost()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
