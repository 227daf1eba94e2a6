// Package outboxtest is the conformance suite of outbox stores: what a database must do so that the guarantees of package outbox
// hold on it. A store that passes may be used wherever outbox takes one.
//
//	func TestConformance(t *testing.T) {
//		outboxtest.Run(t, outboxtest.Harness[*sql.Tx]{New: newStore})
//	}
//
// Every guarantee is a subtest of its own. The suite runs against real time and real servers, waits on conditions and never
// sleeps; it takes a few seconds. A capability that the harness does not declare skips its subtests, with the reason printed.
//
// [Publisher] is a publisher in memory that fails on demand; it serves tests of services as well.
package outboxtest
