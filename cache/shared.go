package cache

import (
	"context"
	"time"
)

const (
	// firstPoll and lastPoll are how long a load waits before it asks again whether another process has done it.
	firstPoll, lastPoll = 2 * time.Millisecond, 50 * time.Millisecond
	// cleanUpTimeout bounds what has to be done in the store after a context has ended.
	cleanUpTimeout = time.Second
)

// ask returns what the store holds, or nil also if it fails.
func (e *engine[K, V]) ask(ctx context.Context, key K) *entry[V] {
	s, ok, err := e.store.Get(ctx, key)
	if err != nil || !ok {
		return nil
	}
	return e.adopt(key, s)
}

// adopt puts an entry of the store on the clock of the cache.
func (e *engine[K, V]) adopt(key K, s Entry[V]) *entry[V] {
	now := e.clock.now()
	found := &entry[V]{value: s.Value, absent: s.Absent, cost: s.Cost, version: s.Version}
	found.stored = now - int64(max(0, s.Age))
	found.fresh = never
	if s.TTL > 0 {
		found.fresh = after(found.stored, s.TTL)
	}
	found.hard = after(found.fresh, max(0, s.Keep))
	e.finish(key, found, now, e.config.Load())
	return found
}

// portable is an entry as the store takes it.
func portable[V any](made *entry[V]) Entry[V] {
	s := Entry[V]{Value: made.value, Absent: made.absent, Cost: made.cost}
	if made.fresh != never {
		s.TTL = time.Duration(made.fresh - made.stored)
		s.Keep = time.Duration(made.hard - made.fresh)
	}
	return s
}

// fetch makes the outcome of f from the store, or from the source under a lease of the store.
func (e *engine[K, V]) fetch(ctx context.Context, f *flight[K, V]) {
	lease, load := e.acquire(ctx, f)
	if !load {
		return
	}
	if lease == nil {
		e.load(ctx, f, time.Now())
		f.fill = f.entry != nil
		return
	}
	returned := false
	defer func() {
		if !returned {
			_ = e.release(ctx, lease)
		}
	}()
	e.load(ctx, f, time.Now())
	returned = true
	_ = e.share(ctx, f, lease) // counted by the guard; the callers have what was loaded
}

// acquire finds an entry of the store for f, or reports that the source is to be asked, with a lease unless the store
// fails, or leaves f without an entry.
func (e *engine[K, V]) acquire(ctx context.Context, f *flight[K, V]) (lease Lease[V], load bool) {
	var seen uint64
	if f.old != nil {
		seen = f.old.version
	}
	if e.memory != nil && (!f.background || seen == 0) {
		s, ok, err := e.store.Get(ctx, f.key) // decides nothing: the memory above may be as old as what it finds
		if err != nil {
			return nil, e.mayLoad(f)
		}
		if ok && e.serve(f, e.adopt(f.key, s)) {
			return nil, false
		}
		seen = s.Version
	}
	for wait := firstPoll; e.mayLoad(f); {
		f.step()
		g, err := e.store.Lease(ctx, f.key, seen)
		switch {
		case err != nil:
			return nil, !e.refreshesNothing(f)
		case g.Lease != nil:
			return g.Lease, true
		case g.Found:
			if e.serve(f, e.adopt(f.key, g.Entry)) {
				f.decided = f.phase
				return nil, false
			}
			seen = g.Entry.Version
		case f.hasty:
			f.again = true
			return nil, false
		default:
			e.pause(ctx, wait)
			wait = min(2*wait, lastPoll)
		}
		if err := ctx.Err(); err != nil {
			f.err, f.failed = e.explain(ctx, err)
			return nil, false
		}
	}
	return nil, false
}

// mayLoad reports whether f may ask the source, and otherwise ends it.
func (e *engine[K, V]) mayLoad(f *flight[K, V]) bool {
	now := e.clock.now()
	if f.old.usableAt(now) && !f.old.freshAt(now) && e.flights.backingOff(f.key, now) {
		f.err = errBackingOff
		return false
	}
	return true
}

// serve makes found the outcome of f if it is good enough, and otherwise the old entry of f.
func (e *engine[K, V]) serve(f *flight[K, V], found *entry[V]) bool {
	now := e.clock.now()
	good := found.freshAt(now)
	if f.background && !found.absent {
		good = now < e.due(found, e.config.Load())
	}
	if !good {
		f.old = found
		return false
	}
	f.entry, f.fill = found, true
	return true
}

// refreshesNothing ends a refresh that could not keep what it loads, because the store fails and there is no memory.
func (e *engine[K, V]) refreshesNothing(f *flight[K, V]) bool {
	f.again = f.background && e.memory == nil
	return f.again
}

// pause waits before the store is asked again, for half of d and up to half as long again.
func (e *engine[K, V]) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d/2 + time.Duration(e.random()*float64(d)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// share ends the lease of f with what f has loaded. What the store refused, because of a newer write, is no good for the
// memory either; nor is what it may have refused, for all that is known.
func (e *engine[K, V]) share(ctx context.Context, f *flight[K, V], lease Lease[V]) error {
	switch {
	case f.gone && f.old != nil:
		return e.store.Delete(ctx, f.key)
	case f.entry == nil:
		return e.release(ctx, lease)
	}
	f.step()
	stored, err := lease.Fill(ctx, portable(f.entry))
	f.decided = f.phase
	if err != nil {
		f.decided = 0
		_ = e.release(ctx, lease)
		return err
	}
	f.fill, f.gone = stored, !stored
	if !stored {
		f.decided = fillRefused
		e.flights.fenced.Add(1)
	}
	return nil
}

// release gives a lease back after a failed load, whose own context may have ended. If that fails, the lease lapses.
func (e *engine[K, V]) release(ctx context.Context, lease Lease[V]) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	return lease.Release(ctx)
}

// doubt is what a write reports of the store's failure.
func (e *engine[K, V]) doubt(err error) error {
	if err == nil {
		return nil
	}
	if known, ok := err.(*Error); ok && known.Kind == ErrStore {
		return err
	}
	return e.fail(ErrStore, err)
}

// watch drops copies when the store tells of changes.
func (e *engine[K, V]) watch(s Store[K, V]) {
	w, ok := s.(Watcher[K])
	if !ok || e.memory == nil {
		return
	}
	changed := func(key K) { e.flights.void(key, nil) }
	e.watching.Go(func() {
		for e.life.Err() == nil {
			_ = w.Watch(e.life, changed, e.flights.voidAll) // ends with life; until then, an error is a loss
			e.flights.voidAll()
			e.pause(e.life, time.Second)
		}
	})
}
