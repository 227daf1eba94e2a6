package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// releaseTimeout bounds how long a store is given to take back the lease of a load that failed.
const releaseTimeout = time.Second

// Cache is a read-through cache: Get returns the entry of a key, or loads it, once for all who ask. Use it for values
// that are read more often than they change and may be a little old; not for what must be current, nor as the only
// copy. Make it with [New] (the zero value is not usable) and Close it when done. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	// What a hit reads comes first, apart from what misses write.
	store  Store[K, V]
	closed atomic.Bool
	config atomic.Pointer[Config]
	hits   counter

	loader      func(context.Context, K) (V, error)
	memory      *memory[K, V] // the store, if it is the built-in one
	flights     flights[K, V]
	life        context.Context // ends with Close, and every load with it
	end         context.CancelFunc
	reconfigure sync.Mutex

	misses, loads, loadFailures, fenced, storeFailures atomic.Uint64
	loadTime                                           atomic.Int64
}

// New returns a cache in front of loader, which must be safe for concurrent use and depend on nothing but the key. It
// panics on a nil loader or option, on a Config that Validate refuses and on a store of other types. The cache runs two
// goroutines for its clock until Close; in a testing/synctest bubble, Close it before the bubble's function returns.
func New[K comparable, V any](loader func(context.Context, K) (V, error), cfg Config, opts ...Option) *Cache[K, V] {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	if loader == nil {
		panic(fmt.Errorf("cache %q: loader is nil", cfg.Name))
	}
	c := &Cache[K, V]{loader: loader}
	cfg = cfg.withDefaults()
	c.config.Store(&cfg)
	c.open(opts)
	c.flights.byKey = make(map[K]*flight[V])
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// open sets the store: the one among the options or the built-in one.
func (c *Cache[K, V]) open(opts []Option) {
	var o options
	for i, opt := range opts {
		if opt == nil {
			panic(fmt.Errorf("cache %q: option %d is nil", c.Config().Name, i))
		}
		opt(&o)
	}
	if !o.foreign {
		c.memory = newMemory[K, V](c.Config().MaxEntries)
		c.store = c.memory
		return
	}
	store, ok := o.store.(Store[K, V])
	if !ok {
		panic(fmt.Errorf("cache %q: WithStore was given a %T, which is no store for this loader", c.Config().Name, o.store))
	}
	c.store = store
}

// Get returns the entry of key or the result of loading it. It blocks only while key is missing, until the load ends
// or ctx does, and then returns ctx.Err(); the load goes on and fills the cache. It returns the loader's error as it
// is, or one that is [ErrClosed], [ErrLoadTimeout] or [ErrKey], or a [*PanicError]. An entry that is present is
// returned even when ctx has ended.
func (c *Cache[K, V]) Get(ctx context.Context, key K) (V, error) {
	if c.closed.Load() {
		var zero V
		return zero, c.fail(ErrClosed, nil)
	}
	e, ok, err := c.store.Get(ctx, key)
	if ok && err == nil {
		c.hits.inc()
		return e.Value, nil
	}
	if err != nil {
		c.storeFailures.Add(1)
	}
	return c.resolve(ctx, key)
}

// resolve waits for the flight of a missing key, and starts it if there is none.
func (c *Cache[K, V]) resolve(ctx context.Context, key K) (zero V, err error) {
	c.misses.Add(1)
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	if !reflexive(key) {
		return zero, c.fail(ErrKey, nil)
	}
	f, lead := c.flights.join(key)
	if f == nil {
		return zero, c.fail(ErrClosed, nil)
	}
	if lead {
		go c.fly(ctx, key, f)
	}
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

// fly is the life of one flight, on a goroutine of its own. Whatever happens to that goroutine, the flight finishes.
func (c *Cache[K, V]) fly(ctx context.Context, key K, f *flight[V]) {
	defer c.flights.ended.Done()
	ctx, cancel := c.detach(ctx)
	defer cancel()
	returned := false
	defer func() {
		if !returned {
			f.err = &PanicError{Name: c.Config().Name, Value: recover(), Stack: debug.Stack()}
		}
		c.flights.finish(key, f)
	}()
	f.value, f.err = c.fetch(ctx, key)
	returned = true
}

// detach returns the context of a load: the values of ctx, the load timeout, and the cache's own end.
func (c *Cache[K, V]) detach(ctx context.Context) (context.Context, context.CancelFunc) {
	var cancel context.CancelFunc
	if cfg := c.Config(); cfg.LoadTimeout > 0 {
		cause := &Error{Name: cfg.Name, Kind: ErrLoadTimeout, Limit: cfg.LoadTimeout}
		ctx, cancel = context.WithTimeoutCause(context.WithoutCancel(ctx), cfg.LoadTimeout, cause)
	} else {
		ctx, cancel = context.WithCancel(context.WithoutCancel(ctx))
	}
	stop := context.AfterFunc(c.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// fetch returns what the store has by now, or loads it and fills the store. Looking again is what makes it one load
// per key: the caller's Get may have missed an entry that another flight has stored since.
func (c *Cache[K, V]) fetch(ctx context.Context, key K) (zero V, err error) {
	e, lease, err := c.store.Lease(ctx, key)
	if err != nil {
		c.storeFailures.Add(1)
		return c.load(ctx, key)
	}
	if lease == nil {
		return e.Value, nil
	}
	loaded := false
	defer func() {
		if !loaded {
			c.release(ctx, lease)
		}
	}()
	v, err := c.load(ctx, key)
	if err != nil {
		return zero, err
	}
	loaded = true
	switch stored, err := lease.Fill(ctx, Entry[V]{Value: v, TTL: c.Config().TTL}); {
	case err != nil:
		c.storeFailures.Add(1)
	case !stored:
		c.fenced.Add(1)
	}
	return v, nil
}

// load calls the loader and counts.
func (c *Cache[K, V]) load(ctx context.Context, key K) (v V, err error) {
	c.loads.Add(1)
	start := time.Now()
	ok := false
	defer func() {
		c.loadTime.Add(int64(time.Since(start)))
		if !ok {
			c.loadFailures.Add(1)
		}
	}()
	v, err = c.loader(ctx, key)
	if err != nil {
		var zero V
		return zero, c.explain(ctx, err)
	}
	ok = true
	return v, nil
}

// explain tells apart what the loader's context did to it from what the context of a caller might have done.
func (c *Cache[K, V]) explain(ctx context.Context, err error) error {
	if c.life.Err() != nil && errors.Is(err, context.Canceled) {
		return c.fail(ErrClosed, err)
	}
	if timeout, ok := context.Cause(ctx).(*Error); ok && errors.Is(err, context.DeadlineExceeded) {
		return &Error{Name: timeout.Name, Kind: timeout.Kind, Limit: timeout.Limit, Cause: err}
	}
	return err
}

// release gives a lease back after a failed load, whose own context may have ended.
func (c *Cache[K, V]) release(ctx context.Context, lease Lease[V]) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := lease.Release(ctx); err != nil {
		c.storeFailures.Add(1)
	}
}

// Set stores value under key for the TTL. A load of key that began before does not overwrite it. The built-in store
// neither blocks nor fails; with another, the error is [ErrStore] and the outcome in doubt. It returns [ErrClosed] after
// Close and [ErrKey] for a key that is not equal to itself.
func (c *Cache[K, V]) Set(ctx context.Context, key K, value V) error {
	if !reflexive(key) {
		return c.fail(ErrKey, nil)
	}
	return c.write(key, func() error {
		return c.store.Set(ctx, key, Entry[V]{Value: value, TTL: c.Config().TTL})
	})
}

// Delete removes the entry of key, if any. A load of key that began before does not bring it back: call Delete after
// the write to the source has been committed. It blocks and fails as Set does.
func (c *Cache[K, V]) Delete(ctx context.Context, key K) error {
	return c.write(key, func() error { return c.store.Delete(ctx, key) })
}

// write changes the store, then keeps new callers from joining a load that began before.
func (c *Cache[K, V]) write(key K, change func() error) error {
	if c.closed.Load() {
		return c.fail(ErrClosed, nil)
	}
	err := change()
	c.flights.forget(key)
	if err != nil {
		c.storeFailures.Add(1)
		return c.fail(ErrStore, err)
	}
	return nil
}

// Config returns the Config in force, defaults filled in.
func (c *Cache[K, V]) Config() Config { return *c.config.Load() }

// Reconfigure replaces the Config, or returns what Validate refuses and changes nothing. Entries, loads in flight and
// counters survive; entries keep the TTL they were stored with. A smaller MaxEntries evicts before it returns.
func (c *Cache[K, V]) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	c.reconfigure.Lock()
	defer c.reconfigure.Unlock()
	old := c.config.Swap(&cfg)
	if c.memory != nil && old.MaxEntries != cfg.MaxEntries {
		c.memory.entries.SetMaximum(uint64(cfg.MaxEntries))
	}
	return nil
}

// Close cancels the loads in flight and waits for them, however long a loader ignores its context; their callers get
// [ErrClosed]. Later calls return ErrClosed, and Close itself nil. A store given by WithStore stays open.
func (c *Cache[K, V]) Close() error {
	c.closed.Store(true)
	c.flights.close()
	c.end()
	c.flights.ended.Wait()
	if c.memory != nil {
		c.memory.close()
	}
	return nil
}

func (c *Cache[K, V]) fail(kind, cause error) error {
	return &Error{Name: c.Config().Name, Kind: kind, Cause: cause}
}

// reflexive reports whether key equals itself, which a NaN does not. A map could never give such a key back.
func reflexive[K comparable](key K) bool {
	same := key
	return key == same
}
