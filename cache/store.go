package cache

import (
	"context"
	"time"
)

// Entry is a value as a [Store] keeps it.
type Entry[V any] struct {
	// Value is what the loader or the caller of Set gave. The zero value is a value.
	Value V
	// TTL is how long the store keeps the entry, counted from when it was stored: a store returns it as it was
	// given, not what is left of it. Zero or negative: until evicted.
	TTL time.Duration
}

// Store is where a [Cache] keeps its entries: the interface that a driver implements. All methods are safe for
// concurrent use and obey ctx as far as they wait. The cache calls Get on every read, and Lease only when Get has found
// nothing. A store may drop any entry at any time. Whoever made the store closes it.
type Store[K comparable, V any] interface {
	// Get returns the entry of key and whether there is one.
	Get(ctx context.Context, key K) (Entry[V], bool, error)
	// Lease returns the entry of key and a nil Lease, or the right to fill the key. While the key is leased already,
	// a store either waits for that fill or grants a newer lease that voids the older one.
	Lease(ctx context.Context, key K) (Entry[V], Lease[V], error)
	// Set stores the entry and voids the lease of key.
	Set(ctx context.Context, key K, e Entry[V]) error
	// Delete removes the entry, if any, and voids the lease of key.
	Delete(ctx context.Context, key K) error
}

// Lease is the right to fill one key, once, with what is loaded after the lease was granted. A Set or a Delete of
// the key voids it, which is how a slow load is kept from overwriting a newer write. A store may also let it lapse.
// Its holder ends it by Fill or Release. It is used by one goroutine.
type Lease[V any] interface {
	// Fill stores the entry and ends the lease. It reports false, and stores nothing, when the lease is void or ended.
	Fill(ctx context.Context, e Entry[V]) (bool, error)
	// Release ends the lease without storing anything, so that the next caller can load at once. On a lease that
	// is void or ended it does nothing.
	Release(ctx context.Context) error
}
