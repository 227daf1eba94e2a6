// Package natsembed runs a NATS server with JetStream inside the process: a durable message broker without a second
// program to install, for single-node services, tests and development. The same client code then works against a NATS
// cluster.
//
// # Guarantees
//
// The server is the upstream nats-server, unchanged. What it has acknowledged:
//
//	event                          default            SyncAlways
//	handler or client fails        kept               kept
//	process ends, even by SIGKILL  kept               kept
//	power or operating system      up to the last     kept, as far as the
//	fails                          2 minutes lost     disk honours fsync
//	disk is lost                   all lost           all lost
//
// By default the server hands each message to the operating system before it acknowledges it and runs fsync every two
// minutes (nats-server issue 7564, found by Jepsen, explains the consequence). SyncAlways runs fsync once per message:
// on the disk that we measured, 4,500 acknowledged messages a second one at a time and 7,300 in flight together,
// against 35,000 and 265,000 without. There is one copy of the data. Services that must survive the machine need a
// cluster with three replicas.
//
// Dir belongs to one server at a time: a lock file, released by the operating system when the process ends, makes a
// second Start fail with ErrInUse. (On systems without flock nothing checks this.)
//
// Without Listen nobody outside the process can connect. With Listen there is still no authentication, hence only
// loopback addresses are accepted; but every user of the machine can then connect.
//
// The server installs no signal handlers, prints nothing, and serves no monitoring port. Close waits until it has ended;
// no goroutine stays behind.
//
// # Use
//
//	srv, err := natsembed.Start(natsembed.Config{Dir: "/var/lib/orders/nats"})
//	if err != nil {
//		return err
//	}
//	defer srv.Close()
//	conn, err := srv.Connect()
//
// Package natspubsub makes a pubsub driver of the connection. Close clients before the server; a client that is left
// open tries to reconnect.
//
// The stores of streams share the disk of Dir without a limit of their own other than three quarters of its free space:
// bound each stream, as natspubsub.Config.MaxAge and MaxBytes do.
//
// # Source
//
// The embedded broker as the NATS documentation describes it for Go, over net.Pipe where no TCP is wanted. Jepsen's report
// on NATS 2.12.1 is the reason for the table above.
package natsembed
