package cache

import "sync"

// flight is one resolution of one missing key, shared by everybody who waits for it. value and err are written before
// done is closed.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// flights are the keys being resolved. A flight is in the map for as long as new callers may join it; running also
// counts those that a write has taken out.
type flights[K comparable, V any] struct {
	mu      sync.Mutex
	byKey   map[K]*flight[V]
	running int
	closed  bool
	ended   sync.WaitGroup
}

// join returns the flight of key, and whether the caller has to run it; nil once closed.
func (g *flights[K, V]) join(key K) (f *flight[V], lead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, false
	}
	if f, ok := g.byKey[key]; ok {
		return f, false
	}
	f = &flight[V]{done: make(chan struct{})}
	g.byKey[key] = f
	g.running++
	g.ended.Add(1)
	return f, true
}

// forget makes the next caller start a flight of its own. It comes after the write to the store: were it to come
// first, a flight could begin between the two, find the old entry, and be joined by a caller that begins after
// the write has returned.
func (g *flights[K, V]) forget(key K) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.byKey, key)
}

// finish hands f to its waiters. The store has been filled by then, so that whoever no longer finds f finds the entry.
func (g *flights[K, V]) finish(key K, f *flight[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byKey[key] == f {
		delete(g.byKey, key)
	}
	g.running--
	close(f.done)
}

// count is how many flights have not finished.
func (g *flights[K, V]) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running
}

// close refuses new flights.
func (g *flights[K, V]) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}
