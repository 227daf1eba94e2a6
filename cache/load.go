package cache

import (
	"context"
	"errors"
	"math"
	"runtime/debug"
	"time"
)

// errBackingOff ends a flight that has found an old entry and must leave the source alone.
var errBackingOff = errors.New("the source is left alone after a failure")

// fly is the life of one flight. Whatever happens to its goroutine, the flight lands.
func (e *engine[K, V]) fly(ctx context.Context, f *flight[K, V]) {
	start := time.Now()
	f.detach(ctx, e.life, start, e.Config().LoadTimeout)
	returned := false
	defer func() {
		if !returned {
			e.crash(f, recover())
		}
		e.land(f)
	}()
	if e.store == nil {
		e.load(f, f, start)
		f.fill = f.entry != nil
	} else {
		e.fetch(f, f)
	}
	returned = true
}

// crash is the outcome of a load that panicked or ended its goroutine.
func (e *engine[K, V]) crash(f *flight[K, V], value any) {
	f.entry, f.fill, f.failed, f.again = nil, false, true, false
	f.err = &PanicError{Name: e.Config().Name, Value: value, Stack: debug.Stack()}
}

func (e *engine[K, V]) land(f *flight[K, V]) (current bool) {
	var b backoff
	if f.failed || f.background {
		b = e.backoff()
	}
	return e.flights.land(f, b)
}

func (e *engine[K, V]) backoff() backoff {
	cfg := e.Config()
	limit := cfg.TTL
	if limit < 0 {
		limit = defaultTTL
	}
	return backoff{now: e.clock.now(), delay: cfg.RetryDelay, limit: limit, random: e.random()}
}

// load calls the loader and makes the outcome of f.
func (e *engine[K, V]) load(ctx context.Context, f *flight[K, V], start time.Time) {
	e.loads.Add(1)
	returned := false
	defer func() {
		if !returned {
			e.loadFailures.Add(1)
		}
	}()
	v, err := e.loader(ctx, f.key)
	returned = true
	end := time.Now()
	e.loadTime.Add(int64(end.Sub(start)))
	if err != nil {
		if e.refuse(ctx, f, err) {
			e.loadFailures.Add(1)
		}
		return
	}
	f.entry = e.keep(f.key, v, e.clock.at(end), end.Sub(start))
}

// refuse makes the outcome of a load that ended with err, and reports whether it failed.
func (e *engine[K, V]) refuse(ctx context.Context, f *flight[K, V], err error) bool {
	if errors.Is(err, ErrNotFound) || e.notFound != nil && e.notFound(err) {
		e.lack(f, err)
		return false
	}
	f.err, f.failed = e.explain(ctx, err)
	return true
}

// lack makes the outcome of a load that found nothing.
func (e *engine[K, V]) lack(f *flight[K, V], cause error) {
	if cause == ErrNotFound { // a wrapped one says more
		cause = nil
	}
	f.err = e.fail(ErrNotFound, cause)
	f.entry = e.keepAbsent(f.key, e.clock.now())
	f.gone = f.entry == nil
}

// explain tells apart what the load's context did to it from what the context of a caller might have done, and whether
// that is a failure of the source.
func (e *engine[K, V]) explain(ctx context.Context, err error) (explained error, failed bool) { //nolint:revive // failed
	if e.life.Err() != nil && errors.Is(err, context.Canceled) {
		return e.fail(ErrClosed, err), false
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == context.DeadlineExceeded {
		cfg := e.Config()
		return &Error{Name: cfg.Name, Kind: ErrLoadTimeout, Limit: cfg.LoadTimeout, Cause: err}, true
	}
	return err, true
}

// keep makes an entry of a value that was loaded, in cost, or set at now.
func (e *engine[K, V]) keep(key K, value V, now int64, cost time.Duration) *entry[V] {
	cfg := e.config.Load()
	return e.keepUntil(e.ends(now, cfg.TTL, cfg.TTLJitter), key, value, now, cost)
}

func (e *engine[K, V]) keepUntil(fresh int64, key K, value V, now int64, cost time.Duration) *entry[V] {
	cfg := e.config.Load()
	made := &entry[V]{value: value, stored: now, cost: cost, fresh: fresh}
	made.hard = after(fresh, max(0, cfg.StaleIfError))
	e.finish(key, made, now, cfg)
	return made
}

// keepAbsent makes an entry of the knowledge that there is none, or nil if that is not to be remembered.
func (e *engine[K, V]) keepAbsent(key K, now int64) *entry[V] {
	cfg := e.config.Load()
	if cfg.NegativeTTL <= 0 {
		return nil
	}
	made := &entry[V]{stored: now, absent: true}
	made.fresh = e.ends(now, cfg.NegativeTTL, cfg.TTLJitter)
	made.hard = made.fresh
	e.finish(key, made, now, cfg)
	return made
}

// ends is when a TTL that begins now does, shortened at random.
func (e *engine[K, V]) ends(now int64, ttl time.Duration, jitter float64) int64 {
	if ttl <= 0 {
		return never
	}
	if jitter > 0 {
		ttl -= time.Duration(jitter * e.random() * float64(ttl))
	}
	return after(now, max(1, ttl))
}

// finish fills in what follows from the rest.
func (e *engine[K, V]) finish(key K, made *entry[V], now int64, cfg *Config) {
	made.local = never
	if e.store != nil && e.memory != nil && cfg.LocalTTL > 0 {
		made.local = after(now, cfg.LocalTTL)
	}
	made.weight = 1
	if e.weigh != nil && !made.absent {
		made.weight = uint32(min(max(0, e.weigh(key, made.value)), math.MaxUint32))
	}
	made.soft.Store(min(e.due(made, cfg), made.local))
}
