package cache

import (
	"context"
	"sync"
	"time"
)

// Aside is a cache that the application fills: Get looks, and who finds nothing asks Begin for the right to load and
// fill. Use it where a load does not fit a function of the key; otherwise [Cache] is less to write. RefreshAhead,
// EarlyRefresh, StaleIfError and a batch loader have no effect on it. Make it with [NewAside] (the zero value is not
// usable) and Close it when done. It is safe for concurrent use.
type Aside[K comparable, V any] struct {
	engine[K, V]
}

// NewAside returns an empty cache. It panics as [New] does, and needs to be closed as that does.
func NewAside[K comparable, V any](cfg Config, opts ...Option) *Aside[K, V] {
	a := &Aside[K, V]{}
	a.open(cfg, opts)
	return a
}

// Get returns the entry of key and whether there is one. It blocks only to ask the store, as long as ctx and
// Config.StoreTimeout allow, and takes a failing store for one that holds nothing. The error is [ErrNotFound] if it is
// remembered that the source has nothing, or [ErrClosed], [ErrKey] or ctx.Err().
func (a *Aside[K, V]) Get(ctx context.Context, key K) (value V, ok bool, err error) {
	h, plain := a.memory.get(key)
	if plain && !a.closed.Load() {
		a.hits.inc()
		return h.value, true, nil
	}
	_, r, done, err := a.look(ctx, key, h.entry)
	if done {
		return r.Value, err == nil, err
	}
	if a.memory == nil || a.store == nil {
		return value, false, nil
	}
	found := a.consult(ctx, key)
	if found == nil {
		return value, false, ctx.Err()
	}
	r, err = a.answer(found, a.clock.now())
	return r.Value, err == nil, err
}

// consult asks the store for an entry and keeps it in memory, unless somebody else is filling the key.
func (a *Aside[K, V]) consult(ctx context.Context, key K) *entry[V] {
	j := a.flights.join(key, nil, false)
	if j.entry != nil {
		return j.entry
	}
	if j.lead {
		j.flight.again = true // for those who join, unless there is an entry
		defer a.land(j.flight)
	}
	found := a.ask(ctx, key)
	if !found.freshAt(a.clock.now()) {
		return nil
	}
	if j.lead {
		j.flight.entry, j.flight.fill, j.flight.again = found, true, false
	}
	return found
}

// Begin asks for the right to load and fill key. It waits while somebody else holds that right, in this process or,
// with a store, in another one, so that one caller at a time loads. The Grant has an Entry that has come meanwhile, or
// a Lease: end it by Fill or Release. A Set, Delete or Invalidate of the key voids the lease; it lapses
// when ctx ends, when Config.LoadTimeout has passed and when the cache is closed. Fill uses the Value, the TTL if
// it is not zero, and Absent, which has an effect with Config.NegativeTTL. The error is ctx.Err(), or [ErrClosed],
// [ErrKey] or [ErrLoadTimeout].
func (a *Aside[K, V]) Begin(ctx context.Context, key K) (g Grant[V], err error) {
	if !reflexive(key) {
		return g, a.fail(ErrKey, nil)
	}
	for ctx.Err() == nil {
		j := a.flights.join(key, nil, false)
		switch {
		case j.closed:
			return g, a.fail(ErrClosed, nil)
		case j.entry != nil:
			return granted(j.entry), nil
		case j.lead:
			return a.grant(ctx, j.flight)
		}
		select {
		case <-j.flight.done:
		case <-ctx.Done():
		}
		if ctx.Err() == nil && j.valid() && j.flight.entry != nil {
			return granted(j.flight.entry), nil
		}
	}
	return g, ctx.Err()
}

func granted[V any](found *entry[V]) Grant[V] { return Grant[V]{Entry: portable(found), Found: true} }

// grant makes a lease of a flight, unless the store has an entry by now.
func (a *Aside[K, V]) grant(caller context.Context, f *flight[K, V]) (g Grant[V], err error) {
	l := &asideLease[K, V]{a: a, flight: f, begun: time.Now()}
	f.detach(caller, a.life, l.begun, a.Config().LoadTimeout)
	f.again = true // until there is an entry
	ctx, cancel := context.WithCancel(f)
	forget := context.AfterFunc(caller, cancel)
	l.stop = func() { forget(); cancel() }
	kept := false
	defer func() {
		if !kept {
			l.stop()
			a.land(f)
		}
	}()
	if a.store != nil {
		load := false
		if l.lease, load = a.acquire(ctx, f); !load {
			return a.found(caller, f)
		}
	}
	kept = true
	l.watch(ctx)
	return Grant[V]{Lease: l}, nil
}

// found is what Begin returns when a flight has ended without a lease.
func (a *Aside[K, V]) found(caller context.Context, f *flight[K, V]) (g Grant[V], err error) {
	if f.entry != nil {
		f.again = false
		return granted(f.entry), nil
	}
	if err := caller.Err(); err != nil {
		return g, err
	}
	return g, f.err
}

// asideLease is a flight that the application flies.
type asideLease[K comparable, V any] struct {
	a      *Aside[K, V]
	flight *flight[K, V]
	lease  Lease[V] // of the store, if there is one and it answers
	begun  time.Time
	mu     sync.Mutex
	ended  bool
	stop   func()
}

// watch lets the lease lapse with ctx.
func (l *asideLease[K, V]) watch(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	stop, forget := l.stop, context.AfterFunc(ctx, func() { _ = l.Release(context.WithoutCancel(ctx)) })
	l.stop = func() { forget(); stop() }
}

// end reports whether the lease had not ended before.
func (l *asideLease[K, V]) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.ended = true
	l.stop()
	return true
}

func (l *asideLease[K, V]) Fill(ctx context.Context, e Entry[V]) (kept bool, err error) {
	if !l.end() {
		return false, nil
	}
	f := l.flight
	defer func() {
		current := l.a.land(f)
		kept = f.fill && (current || l.lease != nil)
	}()
	f.entry = l.made(e)
	f.gone, f.again = f.entry == nil, f.entry == nil
	if l.lease == nil {
		f.fill = f.entry != nil
		return false, nil
	}
	return false, l.a.doubt(l.a.share(ctx, f, l.lease))
}

// made is the entry that the application has loaded, or nil if it is not to be remembered that there is none.
func (l *asideLease[K, V]) made(e Entry[V]) *entry[V] {
	end := time.Now()
	now, key := l.a.clock.at(end), l.flight.key
	switch {
	case e.Absent:
		return l.a.keepAbsent(key, now)
	case e.TTL > 0:
		return l.a.keepUntil(after(now, e.TTL), key, e.Value, now, end.Sub(l.begun))
	default:
		return l.a.keep(key, e.Value, now, end.Sub(l.begun))
	}
}

func (l *asideLease[K, V]) Release(ctx context.Context) error {
	if !l.end() {
		return nil
	}
	defer l.a.land(l.flight)
	if l.lease == nil {
		return nil
	}
	return l.a.doubt(l.a.release(ctx, l.lease))
}
