package cache

import (
	"context"
	"time"
)

// Entry is what a [Store] keeps under a key: a value, or the knowledge that the source has none.
type Entry[V any] struct {
	// Value is what the loader or the caller of Set gave. The zero value is a value.
	Value V
	// Absent says that the source has nothing under the key. Value is then zero.
	Absent bool
	// TTL is how long the entry is fresh, counted from when it was stored. Zero or negative: until evicted.
	TTL time.Duration
	// Keep is how long past its TTL the store holds the entry, for when the source fails. Zero or negative: not at all.
	Keep time.Duration
	// Cost is how long the load took; zero when there was none.
	Cost time.Duration
	// Age is how long ago the entry was stored, by the store's own clock. Set by the store on the way out, ignored on
	// the way in.
	Age time.Duration
	// Version tells one storing of a key from another. Set by the store on the way out and never zero there; ignored on
	// the way in.
	Version uint64
}

// Store is where caches of several processes keep their common entries: the interface that a driver implements. All
// methods are safe for concurrent use and obey ctx as far as they wait. A store may drop any entry at any time. What it
// cannot decode it treats as not there; its errors are of the connection or the server. Whoever made the store closes it.
type Store[K comparable, V any] interface {
	// Get returns the entry of key and whether there is one.
	Get(ctx context.Context, key K) (Entry[V], bool, error)
	// Lease asks for the right to fill key. seen is the Version of the entry that the caller found too old, or zero. When
	// the store holds an entry of another version, it returns that; when somebody else holds the lease, neither.
	// It does not wait for the other's fill. A granted lease lapses when ctx's deadline has passed, or after ten
	// seconds if it has none.
	Lease(ctx context.Context, key K, seen uint64) (Grant[V], error)
	// Set stores the entry and voids the lease of key.
	Set(ctx context.Context, key K, e Entry[V]) error
	// Delete removes the entry, if any, and voids the lease of key.
	Delete(ctx context.Context, key K) error
	// Ping returns nil once the store answers.
	Ping(ctx context.Context) error
}

// Grant is the answer to [Store.Lease]: an entry, or a lease, or neither when another holds the lease.
type Grant[V any] struct {
	// Entry is the newer entry that the store holds, if Found.
	Entry Entry[V]
	// Found says that Entry is set; Lease is then nil.
	Found bool
	// Lease is the right to fill the key, or nil.
	Lease Lease[V]
}

// Lease is the right to fill one key, once, with what is loaded after the lease was granted. A Set or a Delete of
// the key, by whichever process, voids it, which is how a slow load is kept from overwriting a newer write. Its
// holder ends it by Fill or Release. An old entry stays readable until the Fill. It is used by one goroutine.
type Lease[V any] interface {
	// Fill stores the entry and ends the lease. It reports false, and stores nothing, when the lease is void or ended.
	Fill(ctx context.Context, e Entry[V]) (bool, error)
	// Release ends the lease without storing anything, so that the next caller can load at once. On a lease that
	// is void or ended it does nothing.
	Release(ctx context.Context) error
}

// Watcher is implemented by a [Store] that tells when entries change, so that a level above it can drop its copies.
type Watcher[K comparable] interface {
	// Watch blocks until ctx ends. It calls changed for each key that any process has stored or deleted, and lost each
	// time it begins to listen: at first, after a reconnect, or when notices may have been missed. It reconnects by
	// itself. The calls come one at a time.
	Watch(ctx context.Context, changed func(key K), lost func()) error
}
