// Package pubsubtest proves that a pubsub.Driver keeps its promises.
//
// Run drives the portable types of package pubsub over the driver, and the driver itself where the portable types would
// hide a fault, against a real broker and in real time. Each subtest is named after one guarantee and tries to break
// it: delivery to every group, one member per message, redelivery with a count after a failure, delay, dead letters
// that are never lost and can be redriven, order per key with several members that come, go and die, held keys,
// extension and expiry of leases, batches, drain, temporary groups, starts at a time, delayed delivery, duplicates,
// payloads, headers and names of every kind, refusal of what cannot be published.
//
// The driver's own Capabilities decide which guarantees apply: a driver that declares no order is not asked for it,
// and must then refuse it. What is skipped for that, or for a function that the Harness lacks, says so.
// Anything else that a broker cannot do is named in Harness.Skip with the reason, which is printed; an unknown name
// there fails, so that a renamed test is not skipped in silence.
//
// The suite uses the standard library's testing package only, so that it draws nothing into the module that runs it.
// Every test waits for an event, with a generous deadline, and for time only where time is what is tested. On a fast
// broker it takes some fifteen times Harness.Lease, and twelve seconds for what has times of its own, divided by
// Harness.Parallel.
//
// A machine that stands still for as long as a lease makes every driver deliver messages twice. So a test that fails
// after nothing moved for a quarter of the lease is tried again, up to three times, with times twice as long.
//
//	func TestConformance(t *testing.T) {
//		pubsubtest.Run(t, pubsubtest.Harness{
//			New: func(t *testing.T) pubsub.Driver { return mempubsub.New(mempubsub.Config{Retain: 1000}) },
//		})
//	}
//
// The idea of a suite beside the interface is that of gocloud.dev's drivertest packages and of watermill's TestPubSub.
package pubsubtest
