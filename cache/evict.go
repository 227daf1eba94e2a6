package cache

import "sync"

// eviction is one call of the hook of WithOnEvict.
type eviction[K comparable, V any] struct {
	key   K
	value V
	cause string
}

// evictions hands entries that have left the memory to the hook, in order, by a goroutine that lives while there are
// any. The engine reports them under its locks, where the hook must not be called.
type evictions[K comparable, V any] struct {
	hook    func(K, V, string)
	mu      sync.Mutex
	idle    sync.Cond
	queue   []eviction[K, V]
	running bool
}

func newEvictions[K comparable, V any](hook func(K, V, string)) *evictions[K, V] {
	q := &evictions[K, V]{hook: hook}
	q.idle.L = &q.mu
	return q
}

func (q *evictions[K, V]) add(e eviction[K, V]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, e)
	if !q.running {
		q.running = true
		go q.run()
	}
}

// run calls the hook until nothing is left, and in another goroutine if the hook ends this one.
func (q *evictions[K, V]) run() {
	ended := false
	defer func() {
		if !ended {
			go q.run()
		}
	}()
	for e, ok := q.take(); ok; e, ok = q.take() {
		q.hook(e.key, e.value, e.cause)
	}
	ended = true
}

// take returns the next, or reports that the goroutine is to end.
func (q *evictions[K, V]) take() (e eviction[K, V], ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		q.queue, q.running = nil, false
		q.idle.Broadcast()
		return e, false
	}
	e, q.queue[0] = q.queue[0], e
	q.queue = q.queue[1:]
	return e, true
}

// close waits for the calls that are due.
func (q *evictions[K, V]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.running {
		q.idle.Wait()
	}
}
