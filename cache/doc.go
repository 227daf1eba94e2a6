// Package cache keeps the results of a loader function in memory, or in another [Store], and loads each missing key
// once however many callers ask for it.
//
// # Guarantees
//
//   - One load per key. Callers that miss the same key share a single call of the loader, also when the load is so
//     short that it ends while they arrive. A slow load delays nobody who asks for another key.
//   - Every caller obeys its own context. The load belongs to none of them: it runs on a context that keeps the values
//     of the first caller's context but not its cancellation, and ends after Config.LoadTimeout. When the first caller
//     gives up, the others still get the result of the same load.
//   - A write wins over an older load. What a Delete or a Set that began after a load began has done is never
//     overwritten by that load, and a Get that begins after the Delete or Set returned never gets that load's value.
//     Callers that were already waiting for the load still get its value.
//   - A loader that panics, or ends its goroutine with runtime.Goexit, is a [*PanicError] for every caller that
//     waits. The next Get of the key loads again.
//   - The zero value and nil are values like any other and are cached. An error is never cached: it goes, as the
//     loader returned it, to every caller that waits.
//   - An entry is not returned once its TTL is over, give or take ten milliseconds. It may leave earlier, when the
//     cache is full.
//   - A hit allocates nothing and takes no lock.
//   - No goroutine outlives Close, provided that the loader obeys its context.
//
// What is not guaranteed: that a value is as new as the source. Somebody who writes to the source calls Delete (or
// Set) after the write has been committed; between the two, and in processes that do not share the Store, the old
// value may be read until its TTL ends. Nothing is durable: the built-in store dies with the process.
//
// # Usage
//
//	users := cache.New(loadUser, cache.Config{Name: "users", TTL: time.Minute})
//	defer users.Close()
//
//	u, err := users.Get(ctx, id)
//
// loadUser is any func(context.Context, K) (V, error). It must depend on nothing but the key: the context's values come
// from whichever caller was first, so a loader that looks there for the user on whose behalf it acts would hand one
// user's data to another. It is called on a goroutine of its own. A loader that ignores its context keeps its key
// waiting, and Close too; a loader that gets its own key from the same cache waits for itself until LoadTimeout.
// Values are shared by all callers: treat them as read-only.
//
// Policies apply on either side. Around the loader, where the network is, they act once per load: retries, a breaker.
// Get itself is a func(context.Context, K) (V, error) too, and can be wrapped in turn, for instance by a fallback.
//
// # Stores
//
// The built-in store is otter, a concurrent in-process cache with W-TinyLFU admission and a clock that is read every
// ten milliseconds, which makes a hit cheap. Another [Store] is given by [WithStore]. While a store fails, Get
// loads from the source, still once per key, and does not fail because of the store; Set and Delete report it.
// The suite in cachetest checks a Store against its contract.
//
// # Sources
//
// Read-through caching with a fence against stale fills follows the leases of Nishtala and others, "Scaling Memcache at
// Facebook" (NSDI 2013). Sharing one load follows golang/groupcache's singleflight. Eviction is W-TinyLFU:
// Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy" (ACM Transactions on
// Storage, 2017).
package cache
