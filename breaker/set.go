package breaker

import (
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Set is a breaker for each key, such as a host or a tenant, in bounded memory, so that one that is down does not shut out the
// others. Make it with [NewSet]; the zero value is not usable. It is safe for concurrent use, starts no goroutine and
// needs no closing.
//
// A key that was not asked for during Idle is dropped when a new key comes or Stats is asked for. Its calls under way end as
// they would have; the next one meets a new, closed breaker.
type Set[K comparable] struct {
	opts  []Option
	quota quota

	mu      sync.RWMutex // never held while a hook or an operation runs
	cfg     SetConfig
	entries map[K]*entry[K]
	order   []*entry[K] // of the entries, in a circle with a hand: the second-chance algorithm
	hand    int
	swept   time.Time
	dropped Stats // totals of breakers that are gone
	evicted int64
}

type entry[K comparable] struct {
	key     K
	breaker *Breaker
	marks   atomic.Uint32
	idle    bool // not asked for in the sweep before
}

// The marks of an entry. A new one lacks the second, so that keys that come once go before those that come again.
const (
	askedSinceSweep = 1 << iota
	askedSinceHand
	askedAgain = askedSinceSweep | askedSinceHand
)

// NewSet returns a Set without keys. The options are those of each breaker; a Transition names the key. It panics on a
// SetConfig that Validate rejects: call Validate first on input from outside.
func NewSet[K comparable](cfg SetConfig, opts ...Option) *Set[K] {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	cfg = cfg.withDefaults()
	s := &Set[K]{opts: opts, cfg: cfg, entries: map[K]*entry[K]{}, swept: time.Now()}
	s.quota.resize(0, cfg.MaxOpenRatio)
	return s
}

// WrapBy returns fn guarded by the breaker of the key that keyOf finds in the input. The result is safe for concurrent use
// when fn and keyOf are; for a known key it adds no allocation.
func WrapBy[K comparable, In, Out any](s *Set[K], keyOf func(In) K, fn func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	if s == nil || keyOf == nil || fn == nil {
		panic("breaker: WrapBy: the set or a function is nil")
	}
	return func(ctx context.Context, in In) (Out, error) { return run(ctx, s.Get(keyOf(in)), fn, in) }
}

// Get returns the breaker of key, a new one if there is none. Ask again for every call instead of keeping it: it may be
// dropped from the set when nobody asks for it.
func (s *Set[K]) Get(key K) *Breaker {
	s.mu.RLock()
	e := s.entries[key]
	s.mu.RUnlock()
	if e == nil {
		return s.add(key)
	}
	if e.marks.Load() != askedAgain { // a write only where it tells something: the line stays shared between processors
		e.marks.Store(askedAgain)
	}
	return e.breaker
}

// add returns the breaker of a key that had none a moment ago.
func (s *Set[K]) add(key K) *Breaker {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		return e.breaker
	}
	s.sweep()
	for len(s.order) >= s.cfg.MaxKeys {
		s.drop(s.victim())
	}
	e := &entry[K]{key: key, breaker: New(s.cfg.named(key), s.opts...)}
	e.marks.Store(askedSinceSweep)
	e.breaker.join(&s.quota)
	s.entries[key] = e
	s.order = append(s.order, e)
	s.quota.resize(len(s.order), s.cfg.MaxOpenRatio)
	return e.breaker
}

// sweep drops what was idle for the whole of Idle. It looks once in half that time, and drops what was not asked for between
// two looks and the look before.
func (s *Set[K]) sweep() {
	if s.cfg.Idle < 0 || time.Since(s.swept) < s.cfg.Idle/2 {
		return
	}
	late := time.Since(s.swept) >= s.cfg.Idle // nobody looked for so long: once unasked is enough
	s.swept = time.Now()
	for i, e := range slices.Backward(s.order) { // drop moves only what was seen
		asked := e.marks.And(^uint32(askedSinceSweep))&askedSinceSweep != 0
		if !asked && (e.idle || late) {
			s.drop(i)
			continue
		}
		e.idle = !asked
	}
}

// victim is the index of the entry whose place a new key takes: the first in the circle that is closed and was not asked for
// again since the hand passed, or the one under the hand when two rounds, or as many looks as a caller may be made to wait for,
// find none.
func (s *Set[K]) victim() int {
	for range min(2*len(s.order), 1000) {
		i := s.hand % len(s.order)
		e := s.order[i]
		if e.marks.And(^uint32(askedSinceHand))&askedSinceHand == 0 && e.breaker.State() == Closed {
			return i
		}
		s.hand = i + 1
	}
	return s.hand % len(s.order)
}

// drop removes the entry at i, in whose place the last one moves.
func (s *Set[K]) drop(i int) {
	e := s.order[i]
	last := len(s.order) - 1
	s.order[i] = s.order[last]
	s.order[last] = nil
	s.order = s.order[:last]
	delete(s.entries, e.key)
	e.breaker.leave()
	s.dropped.add(e.breaker.Stats())
	s.evicted++
	s.quota.resize(len(s.order), s.cfg.MaxOpenRatio)
}

// add sums the totals of another breaker.
func (s *Stats) add(other Stats) {
	s.Calls += other.Calls
	s.Successes += other.Successes
	s.Failures += other.Failures
	s.Slow += other.Slow
	s.Ignored += other.Ignored
	s.Rejected += other.Rejected
	s.Opened += other.Opened
}

// All yields every key and its breaker, as they were when the iteration began, in no order. It does not count as asking.
func (s *Set[K]) All() iter.Seq2[K, *Breaker] {
	return func(yield func(K, *Breaker) bool) {
		for _, e := range s.snapshot() {
			if !yield(e.key, e.breaker) {
				return
			}
		}
	}
}

func (s *Set[K]) snapshot() []*entry[K] {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.order)
}

// Reconfigure replaces the SetConfig, and the Config of every breaker with what [Breaker.Reconfigure] says of it. Beyond a
// lower MaxKeys the least asked for are dropped; a lower MaxOpenRatio closes none. It returns what Validate returns, and
// then changes nothing.
func (s *Set[K]) Reconfigure(cfg SetConfig) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	s.mu.Lock()
	s.cfg = cfg
	for len(s.order) > cfg.MaxKeys {
		s.drop(s.victim())
	}
	s.quota.resize(len(s.order), cfg.MaxOpenRatio)
	s.mu.Unlock()
	for applied := (SetConfig{}); applied != s.Config(); { // again if another Reconfigure has come between
		applied = s.Config()
		for _, e := range s.snapshot() { // outside the lock, for hooks may be called
			if err := e.breaker.Reconfigure(applied.named(e.key)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Config returns the SetConfig in force, with defaults filled in.
func (s *Set[K]) Config() SetConfig {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.cfg
}
