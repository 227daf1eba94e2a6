package cache

import (
	"context"
	"fmt"
	"time"
)

// Cache is a read-through cache: Get returns the entry of a key, or loads it, once for all who ask. Use it for values
// that are read more often than they change and may be a little old; not for what must be current, nor as the only
// copy. Make it with [New] (the zero value is not usable) and Close it when done. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	engine[K, V]
}

// Result is a value with what is known about it.
type Result[V any] struct {
	// Value is the loaded or cached value.
	Value V
	// Stale says that Value is past its TTL, or has not been compared with the store for Config.LocalTTL, and is served
	// because it could not be loaded again.
	Stale bool
	// Age is how long ago Value was loaded or set.
	Age time.Duration
}

// New returns a cache in front of loader, which must be safe for concurrent use and depend on nothing but the key. It
// panics on a nil loader or option, on a Config that Validate refuses and on an option for other types. The cache runs
// a few goroutines until Close; in a testing/synctest bubble, Close it before the bubble's function returns.
func New[K comparable, V any](loader func(context.Context, K) (V, error), cfg Config, opts ...Option) *Cache[K, V] {
	if loader == nil {
		panic(fmt.Errorf("cache %q: loader is nil", cfg.Name))
	}
	c := &Cache[K, V]{}
	c.loader = loader
	c.open(cfg, opts)
	return c
}

// Get returns the entry of key or the result of loading it. It blocks only while key is missing, until the load ends
// or ctx does, and then returns ctx.Err(); the load goes on and fills the cache. With a ctx that cannot end, the load
// runs on the caller's goroutine. It returns the loader's error as it is, or one that is [ErrNotFound],
// [ErrClosed], [ErrLoadTimeout] or [ErrKey], or a [*PanicError]. What the memory holds is returned even when ctx has
// ended.
func (c *Cache[K, V]) Get(ctx context.Context, key K) (V, error) {
	h, plain := c.memory.get(key)
	if plain && !c.closed.Load() {
		c.hits.inc()
		return h.value, nil
	}
	r, err := c.resolve(ctx, key, h.entry)
	return r.Value, err
}

// Lookup is Get for those who need to know whether the value is stale, and how old it is.
func (c *Cache[K, V]) Lookup(ctx context.Context, key K) (Result[V], error) {
	h, _ := c.memory.get(key)
	return c.resolve(ctx, key, h.entry)
}
