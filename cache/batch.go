package cache

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"
)

// batchWidth is how many keys of one GetAll are loaded, or asked of the store, at a time.
const batchWidth = 16

// GetAll returns the values of those keys that the source has, loading what is missing: by one call of the batch
// loader for the keys that nobody else is loading, or else key by key, sixteen at a time. When keys fail, it returns
// what was found, and the errors joined. It blocks, and obeys ctx, as Get does.
func (c *Cache[K, V]) GetAll(ctx context.Context, keys []K) (map[K]V, error) {
	g := gathering[K, V]{found: make(map[K]V, len(keys))}
	var missing []*wanted[K, V]
	for _, key := range keys {
		if _, ok := g.found[key]; ok {
			continue
		}
		h, plain := c.memory.get(key)
		if plain && !c.closed.Load() {
			c.hits.inc()
			g.found[key] = h.value
		} else {
			missing = append(missing, &wanted[K, V]{key: key, old: h.entry})
		}
	}
	if c.batch == nil {
		atATime(missing, func(w *wanted[K, V]) { c.resolveOne(ctx, w, &g) })
	} else {
		c.resolveAll(ctx, missing, &g)
	}
	return g.found, errors.Join(g.errs...)
}

// wanted is a key that is not in memory, its old entry if any, and the flight that is to bring it.
type wanted[K comparable, V any] struct {
	joined[K, V]
	key    K
	old    *entry[V]
	lease  Lease[V]
	landed bool
}

// gathering is the result of one GetAll as it grows.
type gathering[K comparable, V any] struct {
	mu    sync.Mutex
	found map[K]V
	errs  []error
}

// add takes the outcome of one key. An error that is shared by many is kept once.
func (g *gathering[K, V]) add(key K, r Result[V], err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err == nil:
		g.found[key] = r.Value
	case isNotFound(err), len(g.errs) > 0 && same(err, g.errs[len(g.errs)-1]):
	default:
		g.errs = append(g.errs, err)
	}
}

func isNotFound(err error) bool {
	e, ok := err.(*Error)
	return ok && e.Kind == ErrNotFound
}

func same(a, b error) bool { return reflect.TypeOf(a).Comparable() && a == b }

// resolveOne gathers one key. A loader that ends its goroutine ends one that GetAll has made.
func (e *engine[K, V]) resolveOne(ctx context.Context, w *wanted[K, V], g *gathering[K, V]) {
	var r Result[V]
	var err error = &PanicError{Name: e.Config().Name}
	defer func() { g.add(w.key, r, err) }()
	r, err = e.resolve(ctx, w.key, w.old)
}

// resolveAll is resolve for many keys, with one load for those that nobody else is loading.
func (e *engine[K, V]) resolveAll(ctx context.Context, missing []*wanted[K, V], g *gathering[K, V]) {
	if e.memory == nil {
		atATime(missing, func(w *wanted[K, V]) { e.join(ctx, w, g) })
	} else {
		for _, w := range missing {
			e.join(ctx, w, g)
		}
	}
	led := flying(missing)
	if len(led) > 0 {
		if ctx.Done() == nil {
			e.flyAll(ctx, led)
		} else {
			go e.flyAll(ctx, led)
		}
	}
	for _, w := range missing {
		if w.flight != nil {
			r, err := e.arrive(ctx, w)
			g.add(w.key, r, err)
		}
	}
}

// join answers w from what is held, or gives it a flight.
func (e *engine[K, V]) join(ctx context.Context, w *wanted[K, V], g *gathering[K, V]) {
	old, r, done, err := e.look(ctx, w.key, w.old)
	if done {
		g.add(w.key, r, err)
		return
	}
	j := e.flights.join(w.key, old, true)
	if j.flight == nil {
		r, err = e.grounded(j)
		g.add(w.key, r, err)
		return
	}
	w.old, w.joined = old, j
	if j.lead {
		j.flight.hasty = true
	}
}

// arrive waits for the flight of w, or for another one if that has no outcome.
func (e *engine[K, V]) arrive(ctx context.Context, w *wanted[K, V]) (r Result[V], err error) {
	select {
	case <-w.flight.done:
	case <-ctx.Done():
		return r, ctx.Err()
	}
	if w.valid() {
		if r, err = e.outcome(w.flight, w.old); err != errBackingOff {
			return r, err
		}
	}
	return e.await(ctx, w.key, w.old)
}

// flyAll is fly for many flights.
func (e *engine[K, V]) flyAll(caller context.Context, led []*wanted[K, V]) {
	var ctx loadContext
	ctx.detach(caller, e.life, time.Now(), e.Config().LoadTimeout)
	defer ctx.end()
	defer func() { // also when the batch loader ends the goroutine
		atATime(flying(led), func(w *wanted[K, V]) {
			e.orCrash(w, func() bool { e.keepLoaded(&ctx, w); return false })
		})
	}()
	if e.store != nil {
		atATime(led, func(w *wanted[K, V]) {
			e.orCrash(w, func() (load bool) {
				w.lease, load = e.acquire(&ctx, w.flight)
				return load
			})
		})
	}
	e.loadAll(&ctx, flying(led))
}

// flying are those whose flights this call leads and has not landed.
func flying[K comparable, V any](all []*wanted[K, V]) (left []*wanted[K, V]) {
	for _, w := range all {
		if w.lead && !w.landed {
			left = append(left, w)
		}
	}
	return left
}

// orCrash lands the flight of w unless step reports that it goes on, and whatever step does to its goroutine.
func (e *engine[K, V]) orCrash(w *wanted[K, V], step func() (on bool)) {
	returned, on := false, false
	defer func() {
		if !returned {
			e.crash(w.flight, recover())
			if w.lease != nil {
				_ = e.release(context.Background(), w.lease)
			}
		}
		if !on {
			w.landed = true
			e.land(w.flight)
		}
	}()
	on = step()
	returned = true
}

// loadAll calls the batch loader and makes the outcomes. If it does not return, the flights crash.
func (e *engine[K, V]) loadAll(ctx context.Context, led []*wanted[K, V]) {
	if len(led) == 0 {
		return
	}
	keys := make([]K, len(led))
	for i, w := range led {
		keys[i] = w.key
	}
	e.loads.Add(1)
	start, failed := time.Now(), true
	returned := false
	defer func() {
		if failed {
			e.loadFailures.Add(1)
		}
		if !returned {
			value := recover()
			for _, w := range led {
				e.crash(w.flight, value)
			}
		}
	}()
	values, err := e.batch(ctx, keys)
	end := time.Now()
	e.loadTime.Add(int64(end.Sub(start)))
	failed = err != nil
	for _, w := range led {
		if value, ok := values[w.key]; err == nil && ok {
			w.flight.entry = e.keep(w.key, value, e.clock.at(end), end.Sub(start))
		} else if err == nil {
			e.lack(w.flight, nil)
		} else {
			failed = e.refuse(ctx, w.flight, err)
		}
	}
	returned = true
}

// keepLoaded is the end of a load in the store, if there is one.
func (e *engine[K, V]) keepLoaded(ctx context.Context, w *wanted[K, V]) {
	if w.lease == nil {
		w.flight.fill = w.flight.entry != nil
		return
	}
	_ = e.share(ctx, w.flight, w.lease) // counted by the guard
}

// atATime calls f for all items, on up to batchWidth goroutines.
func atATime[T any](items []T, f func(T)) {
	var wg sync.WaitGroup
	room := make(chan struct{}, batchWidth)
	for _, item := range items {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			f(item)
		})
	}
	wg.Wait()
}
