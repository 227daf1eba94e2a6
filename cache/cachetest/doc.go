// Package cachetest checks an implementation of [cache.Store] against its contract.
//
// A store that passes keeps what it is given until TTL and Keep end and knows its age, grants the lease of a key to one
// caller at a time, keeps a slow load from overwriting a newer write, and takes a lease back when its holder gives up
// or its time has run out. With Harness.Second, all of that holds between two processes. The suite also races loads with
// writes and then looks for an entry that is older than its source. A store that is a [cache.Watcher] is watched. The
// suite cannot show that a store survives the loss of its server: that takes a test that cuts the connection.
//
// The suite is written on plain testing, so that nothing else is linked into a driver's tests:
//
//	func TestStore(t *testing.T) {
//		cachetest.Run(t, cachetest.Harness{
//			New:    func(t *testing.T) cache.Store[string, string] { return open(t, freshPrefix(t)) },
//			Second: func(t *testing.T, first cache.Store[string, string]) cache.Store[string, string] { … },
//			Wait:   time.Sleep,
//		})
//	}
//
// A check that the harness makes impossible is skipped, and says why. The leases come from Nishtala and others, "Scaling
// Memcache at Facebook" (NSDI 2013).
package cachetest
