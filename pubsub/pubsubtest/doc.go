// Package pubsubtest proves that a pubsub.Driver keeps its promises.
//
// Run drives the portable types of package pubsub over the driver, and the driver itself where the portable types would
// hide a fault, against a real broker and in real time. Each subtest is named after one guarantee and tries to break
// it: delivery to every group, one member per message, redelivery with a count after a failure, delay, dead letters
// that are never lost, order per key with several members that come, go and die, extension and expiry of leases, drain,
// payloads and headers of every kind, refusal of what cannot be published.
//
// The driver's own Capabilities decide which guarantees apply: a driver that declares no order is not asked for it,
// and must then refuse it. Anything else that a broker cannot do is named in Harness.Skip with the reason, which is
// printed; an unknown name there fails, so that a renamed test is not skipped in silence.
//
// The suite uses the standard library's testing package only, so that it draws nothing into the module that runs it.
// Nothing sleeps: every test waits for an event, with a generous deadline. It takes some fifteen times Harness.Lease on
// a fast broker.
//
//	func TestConformance(t *testing.T) {
//		pubsubtest.Run(t, pubsubtest.Harness{
//			New: func(t *testing.T) pubsub.Driver { return mempubsub.New(mempubsub.Config{Retain: 1000}) },
//		})
//	}
//
// The idea of a suite beside the interface is that of gocloud.dev's drivertest packages and of watermill's TestPubSub.
package pubsubtest
