package cache

import (
	"context"
	"fmt"
)

// Option gives a cache what data cannot express. Options are fixed at construction, which panics on one that is nil
// or made for other types of keys and values.
type Option func(*options)

// options are kept untyped: Option has no type parameters, so that nobody has to spell them out.
type options struct {
	store, weigh, batch, onEvict any
	stored, tiered               bool // a store was given, and as a second level
	notFound                     func(error) bool
}

// WithStore keeps the entries in s alone, instead of in memory: every Get asks s. The caller closes s, after the
// cache.
func WithStore[K comparable, V any](s Store[K, V]) Option {
	return func(o *options) { o.store, o.stored, o.tiered = s, true, false }
}

// WithL2 makes s the second level below the memory: what the memory lacks, or has held for longer than
// Config.LocalTTL, is asked of s, and then loaded under a lease of s. If s is a [Watcher], a change by any process drops
// the copy in memory. The caller closes s, after the cache.
func WithL2[K comparable, V any](s Store[K, V]) Option {
	return func(o *options) { o.store, o.stored, o.tiered = s, true, true }
}

// WithNotFound recognises the errors by which the loader says that the source has nothing under the key, besides those
// that are [ErrNotFound]. It is called with every error of the loader.
func WithNotFound(is func(error) bool) Option {
	return func(o *options) { o.notFound = is }
}

// WithBatchLoader lets GetAll load many keys by one call. Keys that are absent from the map are not in the source; an
// error is that of every key. It is called as the loader is, but with each key at most once.
func WithBatchLoader[K comparable, V any](load func(ctx context.Context, keys []K) (map[K]V, error)) Option {
	return func(o *options) { o.batch = load }
}

// WithWeight bounds the memory by Config.MaxWeight instead of a number of entries. weigh is called once for each entry
// that is stored, and outside of locks; less than zero counts as zero, and what weighs zero is not evicted.
func WithWeight[K comparable, V any](weigh func(key K, value V) int) Option {
	return func(o *options) { o.weigh = weigh }
}

// WithOnEvict calls f after an entry has left the memory, with the cause "overflow", for want of room, or "expired". It
// is not called for entries that a Set replaces or a Delete removes. The calls come one at a time, in order,
// outside of locks, and may call the cache, but for Close, which waits for them. While f is slow, evicted
// entries wait in memory.
func WithOnEvict[K comparable, V any](f func(key K, value V, cause string)) Option {
	return func(o *options) { o.onEvict = f }
}

// gather calls the options.
func gather(name string, opts []Option) (o options) {
	for i, opt := range opts {
		if opt == nil {
			panic(fmt.Errorf("cache %q: option %d is nil", name, i))
		}
		opt(&o)
	}
	if o.stored && o.store == nil {
		panic(fmt.Errorf("cache %q: the store is nil", name))
	}
	return o
}

// typed is given as a T, or nothing if the option was not given.
func typed[T any](name, option string, given any) T {
	t, ok := given.(T)
	if given != nil && !ok {
		panic(fmt.Errorf("cache %q: %s was given a %T, which does not fit the keys and values of this cache", name, option, given))
	}
	return t
}
