package cache

import "context"

// resolve answers a read that is no plain hit. old is what the memory holds.
func (e *engine[K, V]) resolve(ctx context.Context, key K, old *entry[V]) (Result[V], error) {
	old, r, done, err := e.look(ctx, key, old)
	if done {
		return r, err
	}
	return e.await(ctx, key, old)
}

// look is done if no flight is needed; otherwise it returns the entry that was found too old, if any.
func (e *engine[K, V]) look(ctx context.Context, key K, old *entry[V]) (_ *entry[V], r Result[V], done bool, err error) {
	if e.closed.Load() {
		return nil, r, true, e.fail(ErrClosed, nil)
	}
	if !reflexive(key) {
		e.misses.Add(1)
		return nil, r, true, e.fail(ErrKey, nil)
	}
	if e.memory == nil {
		old = e.ask(ctx, key)
	}
	if old != nil {
		if now := e.clock.now(); old.freshAt(now) {
			e.hits.inc()
			e.refreshIfDue(ctx, key, old, now)
			r, err = e.answer(old, now)
			return old, r, true, err
		}
	}
	e.misses.Add(1)
	err = ctx.Err()
	return old, r, err != nil, err
}

// await joins the flight of a missing key, or leads it, until one has an outcome.
func (e *engine[K, V]) await(ctx context.Context, key K, old *entry[V]) (r Result[V], err error) {
	for {
		j := e.flights.join(key, old, ctx.Done() != nil)
		if j.flight == nil {
			return e.grounded(j)
		}
		if err := e.board(ctx, j); err != nil {
			return r, err
		}
		if j.valid() {
			if r, err = e.outcome(j.flight, old); err != errBackingOff {
				return r, err
			}
		}
	}
}

// grounded is the answer where there is no flight.
func (e *engine[K, V]) grounded(j joined[K, V]) (r Result[V], err error) {
	switch {
	case j.closed:
		return r, e.fail(ErrClosed, nil)
	case j.stale:
		return e.staleAnswer(j.entry, j.now), nil
	default:
		return e.answer(j.entry, j.now)
	}
}

// board runs the flight or waits for it. The error is that of ctx.
func (e *engine[K, V]) board(ctx context.Context, j joined[K, V]) error {
	f := j.flight
	if j.lead {
		if e.lead(ctx, f); ctx.Done() == nil {
			return nil
		}
	}
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lead runs f, on a goroutine of its own if the caller might give up.
func (e *engine[K, V]) lead(ctx context.Context, f *flight[K, V]) {
	if ctx.Done() == nil {
		e.fly(ctx, f)
		return
	}
	go e.fly(ctx, f)
}

// outcome is what f has to say to a caller that holds old.
func (e *engine[K, V]) outcome(f *flight[K, V], old *entry[V]) (r Result[V], err error) {
	if f.err == nil && f.entry.version == 0 && !f.entry.absent { // just loaded
		return Result[V]{Value: f.entry.value}, nil
	}
	now := e.clock.now()
	if f.err == nil {
		return e.answer(f.entry, now)
	}
	if old == nil || f.old != nil && f.old.stored > old.stored {
		old = f.old
	}
	if (f.failed || f.err == errBackingOff) && old.usableAt(now) {
		return e.staleAnswer(old, now), nil
	}
	return r, f.err
}

// answer makes a result of an entry.
func (e *engine[K, V]) answer(found *entry[V], now int64) (r Result[V], err error) {
	if found.absent {
		e.negative.Add(1)
		return r, e.fail(ErrNotFound, nil)
	}
	return Result[V]{Value: found.value, Age: found.age(now)}, nil
}

func (e *engine[K, V]) staleAnswer(old *entry[V], now int64) Result[V] {
	e.stale.Add(1)
	return Result[V]{Value: old.value, Stale: true, Age: old.age(now)}
}
