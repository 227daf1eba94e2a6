// Package mempubsub is a pubsub.Driver on a broker in the memory of this process: for tests, for one-process services,
// and as the reference of what a driver does.
//
// # Guarantees
//
// Delivery: at least once as long as the process lives; nothing survives it, and Capabilities.Durable is false. A
// message goes to the groups that exist when it is published. Groups exist from their first Open on, outlive their
// members and their driver, and end with RemoveGroup. A message on a topic without groups is dropped and counted in
// Stats.Dropped, with two exceptions: the latest Config.Retain messages of a topic are kept for groups that begin at
// "start", and the dead letters of a group that was opened are kept until a first group reads their topic, whatever
// its Start.
//
// Bounded memory: a group holds at most Config.MaxPending unsettled messages. When one group of a topic is full,
// Publish to that topic waits, so the slowest group sets the pace; end the wait with the context, and remove a group
// that nobody serves. Dead letters that nobody reads are bounded in the same way: at the limit their publish waits,
// the message stays with its group, and nothing is lost.
//
// Order: a group opened with Ordered has Config.Lanes lanes, first in, first out, each with one member at a time.
// Members share the lanes evenly; a lane moves once its member has settled what it had, or has lost a lease. Lost and
// refused messages are delivered again before later ones of their lane. An unordered group is one queue in order of
// publishing, from which any member takes.
//
// Cost: no goroutine, neither per message nor per group; leases and delays are timers. Messages are not copied:
// publisher and handlers share Header and Payload, which nobody may change. All of it works inside a testing/synctest
// bubble, where leases, delays and backoff take no real time.
//
// # Use
//
//	driver := mempubsub.New(mempubsub.Config{})
//	bus := pubsub.New(driver)
//
// In a test that plays several processes, give each its own bus with pubsub.New(driver.Connect()).
//
// The lease is the visibility timeout of Amazon SQS, the single owner of a lane the single active consumer of RabbitMQ.
package mempubsub
