// Package cachetest checks an implementation of [cache.Store] against its contract.
//
// A store that passes keeps what it is given until the TTL ends, keeps a slow load from overwriting a newer write, and
// takes a lease back at once when its holder gives up. The suite also races loads with writes and then looks for
// an entry that is older than its source. It cannot show that a store survives the loss of its server: that takes a
// test that cuts the connection.
//
// The suite is written on plain testing, so that nothing else is linked into a driver's tests:
//
//	func TestStore(t *testing.T) {
//		cachetest.Run(t, cachetest.Harness{
//			New:  func(t *testing.T) cache.Store[string, string] { return open(t) },
//			TTL:  time.Second,
//			Wait: time.Sleep,
//		})
//	}
//
// A check that the harness makes impossible is skipped, and says why. The leases come from Nishtala and others, "Scaling
// Memcache at Facebook" (NSDI 2013).
package cachetest
