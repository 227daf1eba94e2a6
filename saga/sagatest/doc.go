// Package sagatest checks that a saga.Store keeps its contract.
//
// # Guarantees
//
// Run tries to break every sentence of saga.Store's documentation, and then runs sagas over the store: creation is idempotent, a
// claim is exclusive, leases and pauses end by the store's clock alone, a stale token changes nothing and spoils nothing
// beside it, an expired lease shows as an attempt in doubt, history is complete and in order, ended instances are never
// due, an event is kept once and wakes what waits for it, two runners never run the same step, and a dead owner's instance is taken over.
//
// It cannot show that acknowledged changes survive the death of a process or machine: a durable store needs a test that
// kills one.
//
// # Use
//
// Call Run from a test of the store's package with a function that opens an empty store:
//
//	func TestStore(t *testing.T) {
//		sagatest.Run(t, func(t *testing.T) saga.Store { return memsaga.New() })
//	}
//
// The suite runs in real time, for some seconds, and links nothing but the standard library's testing. The approach is
// that of golang.org/x/net/nettest: one suite beside the interface, run by every implementation.
package sagatest
