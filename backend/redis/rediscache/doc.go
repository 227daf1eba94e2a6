// Package rediscache keeps the entries of package cache in Redis, so that the processes of a service share them.
//
// # Guarantees
//
//   - A write wins over an older load, between any processes. A lease is a token in Redis; Set and Delete remove it, Fill
//     stores only while it is there. Each of these is one script, and Redis runs scripts one at a time.
//   - One lease per key at a time. It ends by Fill, Release, Set or Delete, or lapses when the deadline of the context
//     that asked for it has passed, counted from when Redis granted it: the death of its holder blocks nobody for longer.
//   - An entry is as old as Redis's clock says, to a few milliseconds. The clocks of the processes do not matter. When a
//     write comes between the two commands of a Get, the entry seems older than it is, never younger.
//   - Every call ends with its context, also while Redis is stopped or a connection carries nothing. What the client then
//     still does for it, such as connecting, ends by the client's own timeouts. See also package goredis.
//   - What is under a key and is no entry, or one that the codec refuses, is treated as not there and can be replaced by
//     Lease and Fill, or Set. Stats counts it.
//   - Watch tells of stores, deletions, expiries and evictions, whoever makes them, and calls lost when it may have missed
//     some. A connection that has gone silent is given up within five seconds.
//
// What is not guaranteed: that an entry stays. Redis may evict it, and a restart without persistence empties the cache and
// voids all leases. Redis replicates asynchronously, so a failover can lose what had been acknowledged, such as a Delete;
// then an old entry is read until its TTL ends. For the same reason give the Store a client that reads from masters.
//
// # In doubt
//
// An error that is ErrUnanswered leaves a Set, Delete or Fill in doubt: it may have been made, and may be repeated. An
// error that is ErrRefused is Redis's answer, and nothing was changed. A lease whose answer was lost lapses by itself. The
// scripts find their own traces, so a client that repeats them, as go-redis does, gets the answer of the first time.
//
// # Client-side caching
//
// A cache with this Store as its second level (cache.WithL2) is client-side caching: it answers from the memory of the
// process, and Watch drops there what any process has changed in Redis. Another process's change is seen when its notice
// arrives, or when Config.LocalTTL of the cache has passed if notices are lost; a connection that has gone silent costs
// at most five seconds. The client's own client-side cache is not used.
//
// # In Redis
//
// An entry is the string prefix:v:{=key}, its lease the string prefix:l:{=key}; the braces put both into one slot of a
// cluster, whatever the key contains. Scripts touch no other key. The value is a header of 34 bytes and what the codec
// wrote. Every key has an expiry, TTL and Keep together or ten years, so that the volatile eviction policies apply.
// A Set, Delete, Lease or Fill is one round trip and one script; a Get is PTTL and GET in one round trip.
//
// The tests run on Redis 7.0. The notices that Watch needs came with Redis 6.
//
// # Use
//
//	opt, err := rediscache.ClientOption("redis://127.0.0.1:6379")
//	if err != nil {
//		return err
//	}
//	client, err := rueidis.NewClient(opt)
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	users, err := rediscache.New[string, User](client, rediscache.Config{Prefix: "users:1"})
//
// A client with options of its own should have a ConnWriteTimeout of a few seconds, by which rueidis notices dead
// connections, and a Dialer.Timeout of one. Package goredis makes a Store of a go-redis client.
//
// # Source
//
// The leases are those of Nishtala and others, "Scaling Memcache at Facebook" (NSDI 2013); rueidisaside does something
// similar on this client. Notices are Redis's client-side caching in broadcasting mode.
package rediscache
