// Package cache keeps what is expensive to load: in memory, in a [Store] that several processes share, or in both. It
// loads each missing key once, however many callers ask for it, and never lets a slow load overwrite a newer write.
//
// # Guarantees
//
//   - One load per key. Callers that miss the same key share a single call of the loader, also when the load is so
//     short that it ends while they arrive; with a store, so do processes, for as long as the store answers. A slow
//     load delays nobody who asks for another key.
//   - Every caller obeys its own context. The load belongs to none of them: it runs on a context that keeps the values
//     of the first caller's context but not its cancellation, and ends after Config.LoadTimeout. When the first caller
//     gives up, the others still get the result of the same load.
//   - A write wins over an older load, a refresh included. What a Delete or a Set that began after a load began has
//     done is never overwritten by that load: not in memory, not in the store, and not from another process. A Get
//     that begins after the Delete or Set returned never gets that load's value, in the same process, or in any that
//     uses the store without memory. Callers that were already waiting for the load may still get its value.
//   - An entry is fresh for at most Config.TTL, exact to ten milliseconds. Memory over a store may in addition be
//     Config.LocalTTL behind the store, or as long as a notice takes if the store is a [Watcher].
//   - Past its TTL an entry is served only if loading it has just failed and Config.StaleIfError allows, with
//     Result.Stale set, and never beyond that bound. An answer that the source has nothing is no failure: it replaces
//     the entry. While the source fails it is left alone for growing intervals, as long as there is an entry to serve.
//   - A failing store fails no Get: the source is asked instead, still once per key and process, and no call waits longer
//     than Config.StoreTimeout for the store. Set and Delete report [ErrStore], which means in doubt: the key
//     is deleted once the store answers again, and until then, or if this process dies, others may
//     read the old entry until its TTL ends.
//   - A loader that panics, or ends its goroutine with runtime.Goexit, is a [*PanicError] for every caller that
//     waits. The next Get of the key loads again, at once, in other processes too.
//   - The zero value and nil are values like any other and are cached. An error is not cached, but for [ErrNotFound]
//     during Config.NegativeTTL.
//   - Memory is bounded by a number of entries or by weight. A hit in memory allocates nothing and takes no lock.
//   - No goroutine outlives Close, provided that the loader obeys its context.
//
// What is not guaranteed: that a value is as new as the source. Somebody who writes to the source calls Delete (or
// Set) after the write has been committed, or lets a [WriteThrough] do so. Nothing is durable: the memory dies with
// the process.
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
// user's data to another. It runs on a goroutine of its own, or on the caller's if the caller's context cannot
// end: there, runtime.Goexit ends the caller too. A loader that ignores its context keeps its key
// waiting, and Close too; a loader that gets its own key from the same cache waits for itself until LoadTimeout, or for
// ever on a caller's goroutine. Values are shared by all callers: treat them as read-only.
//
// The patterns are explicit: [Cache] reads through, and refreshes ahead if its Config says so; [Aside] is filled by the
// application; [WriteThrough] writes the source first.
//
// Policies apply on either side. Around the loader, where the network is, they act once per load: retries, a breaker.
// Get itself is a func(context.Context, K) (V, error) too, and can be wrapped in turn, for instance by a fallback.
//
// # Levels
//
// The memory is otter, a concurrent in-process cache with W-TinyLFU admission and a clock that is read every ten
// milliseconds, which makes a hit cheap. [WithStore] puts a store in its place: each Get asks it, and all processes
// see a change at once. [WithL2] puts a store below the memory. Loads hold a lease of the store: a process that
// finds the lease taken asks again every few milliseconds until the entry is there. While a WriteThrough writes, its
// key is leased as well. The suite in cachetest checks a Store against its contract.
//
// # Sources
//
// Read-through caching with a fence against stale fills follows the leases of Nishtala and others, "Scaling Memcache at
// Facebook" (NSDI 2013). Sharing one load follows golang/groupcache's singleflight. Early refresh is XFetch: Vattani,
// Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention" (VLDB 2015). Serving stale on error is
// RFC 5861. Eviction is W-TinyLFU: Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission
// Policy" (ACM Transactions on Storage, 2017).
package cache
