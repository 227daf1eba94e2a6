package cache

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// stripes is how many locks share the keys.
const stripes = 64

// flight is one resolution of one key, shared by everybody who waits for it, and its right to change the memory, which
// it has for as long as its stripe holds it. The outcome is written before done is closed.
type flight[K comparable, V any] struct {
	loadContext
	key    K
	stripe *stripe[K, V]
	// old is the newest entry that was found too old, if any.
	old *entry[V]
	// background is a refresh: old is still fresh, and nobody need wait.
	background bool
	// hasty flights do not wait while another process loads.
	hasty bool
	// token is a write under way: it can be voided as a load can, but not be joined.
	token bool
	done  chan struct{} // made, under the stripe's lock, by whoever first waits

	entry *entry[V] // the outcome, or what to remember of the lack of one
	err   error     // why there is no outcome
	// again says that there is no outcome and no error either: whoever waits has to begin anew.
	again bool
	// fill says that entry may be kept in memory; gone, that an old one must go.
	fill, gone bool
	// failed says that the source failed.
	failed bool
	// phase counts the calls of the store that have begun, under the stripe's lock, and decided is the phase of the call
	// that made the outcome: zero if none did, fillRefused if the store refused it.
	phase, decided int
}

const fillRefused = -1

// stripe orders, for its keys, the ends of loads with the writes.
type stripe[K comparable, V any] struct {
	mu      sync.Mutex
	flights map[K]*flight[K, V]
	failing failing[K]
	running int      // flights that have not ended, voided ones included
	_       [64]byte // keeps neighbouring locks off one cache line
}

// flights are the keys under way. A flight is in its map for as long as new callers may join it.
type flights[K comparable, V any] struct {
	memory  *memory[K, V]
	clock   clock
	closed  *atomic.Bool
	fenced  atomic.Uint64
	ended   sync.WaitGroup
	seed    maphash.Seed
	stripes [stripes]stripe[K, V]
}

func (g *flights[K, V]) open(m *memory[K, V], c clock, closed *atomic.Bool) {
	g.memory, g.clock, g.closed, g.seed = m, c, closed, maphash.MakeSeed()
	for i := range g.stripes {
		g.stripes[i].flights = make(map[K]*flight[K, V])
	}
}

func (g *flights[K, V]) stripe(key K) *stripe[K, V] {
	return &g.stripes[maphash.Comparable(g.seed, key)%stripes]
}

// joined is what join found: a flight, to run if lead, or an entry to be served, or that the cache is closed.
type joined[K comparable, V any] struct {
	flight *flight[K, V]
	phase  int // of the flight, when it was joined
	lead   bool
	entry  *entry[V]
	stale  bool // entry is past its time, and the source is to be left alone
	now    int64
	closed bool
}

// valid reports whether the outcome of the flight is one for this caller. What a call of the store has decided that had
// begun when the caller joined may be older than a write, by another process, that had ended by then.
func (j joined[K, V]) valid() bool {
	return !j.flight.again && (j.lead || j.flight.decided == 0 || j.phase < j.flight.decided)
}

// join makes the caller a part of the key's flight. old is the entry that the caller found too old. The look into the
// memory under the lock is what makes it one load per key: the caller's own look may have missed an entry that
// a flight has left since. wait says that the caller may have to wait for a flight that it leads.
func (g *flights[K, V]) join(key K, old *entry[V], wait bool) joined[K, V] {
	s := g.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.closed.Load() {
		return joined[K, V]{closed: true}
	}
	if f := s.flights[key]; f != nil && !f.token {
		f.wait()
		return joined[K, V]{flight: f, phase: f.phase}
	}
	if e := g.memory.peek(key); e != nil {
		old = e
	}
	if old != nil {
		now := g.clock.now()
		if g.memory != nil && old.freshAt(now) {
			return joined[K, V]{entry: old, now: now}
		}
		if old.usableAt(now) && now < old.local && s.failing.until(key) > now {
			return joined[K, V]{entry: old, now: now, stale: true}
		}
	}
	f := g.begin(s, key, old)
	if wait {
		f.wait()
	}
	return joined[K, V]{flight: f, lead: true}
}

// refresh returns a flight to run in the background, unless there is one or the source is to be left alone.
func (g *flights[K, V]) refresh(key K, old *entry[V], now int64) *flight[K, V] {
	s := g.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.closed.Load() || s.flights[key] != nil || s.failing.paused(key, now) {
		return nil
	}
	if g.memory != nil && g.memory.peek(key) != old {
		return nil
	}
	f := g.begin(s, key, old)
	f.background, f.hasty = true, true
	return f
}

// begin adds a flight. The stripe is locked.
func (g *flights[K, V]) begin(s *stripe[K, V], key K, old *entry[V]) *flight[K, V] {
	f := &flight[K, V]{key: key, stripe: s, old: old}
	s.flights[key] = f
	s.running++
	g.ended.Add(1)
	return f
}

// wait makes done. The stripe is locked.
func (f *flight[K, V]) wait() {
	if f.done == nil {
		f.done = make(chan struct{})
	}
}

// land ends f with its outcome, which goes into the memory if nothing has voided f. It reports whether that is so.
func (g *flights[K, V]) land(f *flight[K, V], b backoff) bool {
	defer g.ended.Done()
	f.end()
	s := f.stripe
	s.mu.Lock()
	defer s.mu.Unlock()
	current := s.flights[f.key] == f
	if current {
		delete(s.flights, f.key)
		g.settle(s, f, b)
	} else if f.fill {
		g.fenced.Add(1)
	}
	s.running--
	if f.done != nil {
		close(f.done)
	}
	return current
}

// settle changes the memory by the outcome of f. The stripe is locked.
func (g *flights[K, V]) settle(s *stripe[K, V], f *flight[K, V], b backoff) {
	switch {
	case f.fill:
		s.failing.forget(f.key)
		g.memory.put(f.key, f.entry)
	case f.gone:
		s.failing.forget(f.key)
		g.memory.drop(f.key)
	case f.failed && f.old.usableAt(b.now):
		g.memory.peek(f.key).pause(s.failing.add(f.key, b))
	case f.background:
		g.memory.peek(f.key).pause(s.failing.pause(f.key, b))
	}
}

// void takes away the right of a flight of key, if any, to change the memory, and puts e there instead, or nothing. It
// comes after a write to the store: were it to come first, a flight could begin between the two, find the old
// entry, and be joined by a caller that begins after the write has returned.
func (g *flights[K, V]) void(key K, e *entry[V]) {
	s := g.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	g.replace(s, key, e)
}

func (g *flights[K, V]) replace(s *stripe[K, V], key K, e *entry[V]) {
	delete(s.flights, key)
	s.failing.forget(key)
	if e != nil {
		g.memory.put(key, e)
	} else {
		g.memory.drop(key)
	}
}

// claim voids the flight of key and returns the token of a write that begins.
func (g *flights[K, V]) claim(key K) *flight[K, V] {
	s := g.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &flight[K, V]{key: key, stripe: s, token: true}
	s.flights[key] = f
	return f
}

// settleWrite ends a write: its entry is put into the memory, unless another write or a load has begun since it took its
// token. Of two writes at a time, neither knows which came last, so both leave nothing.
func (g *flights[K, V]) settleWrite(token *flight[K, V], e *entry[V]) {
	s := token.stripe
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flights[token.key] != token {
		e = nil
	}
	g.replace(s, token.key, e)
}

// step counts a call of the store.
func (f *flight[K, V]) step() {
	f.stripe.mu.Lock()
	defer f.stripe.mu.Unlock()
	f.phase++
}

// backingOff reports whether the source is to be left alone, because loading key has failed.
func (g *flights[K, V]) backingOff(key K, now int64) bool {
	s := g.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failing.until(key) > now
}

// voidAll is void for every key.
func (g *flights[K, V]) voidAll() {
	for i := range g.stripes {
		s := &g.stripes[i]
		s.mu.Lock()
		clear(s.flights)
		s.failing.forgetAll()
		s.mu.Unlock()
	}
	g.memory.clear()
}

// count is how many flights have not ended.
func (g *flights[K, V]) count() (n int) {
	for i := range g.stripes {
		s := &g.stripes[i]
		s.mu.Lock()
		n += s.running
		s.mu.Unlock()
	}
	return n
}

// close waits for the flights. The flag is set already; once each lock has been held, no flight begins any more.
func (g *flights[K, V]) close(cancel func()) {
	for i := range g.stripes {
		g.stripes[i].mu.Lock()
		g.stripes[i].mu.Unlock() //nolint:staticcheck // see above
	}
	cancel()
	g.ended.Wait()
}
