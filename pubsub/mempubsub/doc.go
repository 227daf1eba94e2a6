// Package mempubsub is a pubsub.Driver on a broker in the memory of this process: for tests, for one-process services,
// and as the reference of what a driver does.
//
// # Guarantees
//
// Delivery: at least once as long as the process lives; nothing survives it, and Capabilities.Durable is false. A
// message goes to the groups that exist when it is published. Groups exist from their first Open on, outlive their
// members and their driver, and end with RemoveGroup; a Temporary one ends with its last receiver, together with what it
// has not settled. A message on a topic without groups is dropped and counted in Stats.Dropped, with two exceptions: the
// latest Config.Retain messages of a topic are kept for groups that begin at "start" or at a time, and the dead letters
// of a group that was opened are kept until a first group reads their topic, whatever its Start.
//
// Bounded memory: a group holds at most Config.MaxPending unsettled messages, those not yet due included. When one group
// of a topic is full, Publish to that topic waits, so the slowest group sets the pace; end the wait with the context, and
// remove a group that nobody serves. With Config.WhenFull "reject" it fails at once instead, with an *Error that names
// the group; the message is then queued for nobody. Dead letters that nobody reads are bounded in the same way: at the
// limit their publish waits or fails, the message stays with its group, and nothing is lost.
//
// Topics exist from the first Publish or Open that names them, and are never removed: one costs about 600 bytes beside what
// its groups hold, so take their names from a set that is bounded. There is no limit to configure, since refusing a name
// would make a message depend on those before it. RemoveGroup and the end of a Temporary group free all but the name.
//
// Order: a group opened with Ordered has Config.Lanes lanes, first in, first out, each with one member at a time.
// Members share the lanes evenly; a lane moves once its member has settled what it had, or has lost a lease. Lost and
// refused messages are delivered again before later ones of their lane. An unordered group is one queue in order of
// publishing, from which any member takes.
//
// Delay: a message with a DeliverAt is not in its lane before that time by the wall clock. Then it is queued behind what
// is there, as if it were published at that moment; messages due at the same time keep their order.
//
// Duplicates: with Config.DedupWindow a message whose pubsub.DedupID the topic has accepted within the window is
// accepted and delivered to nobody. Without it, which is the default, it is delivered like any other.
//
// Cost: no goroutine, neither per message nor per group; leases, delays and schedules are timers, one per receiver and
// two per group. A batch of one topic is published, received and settled under one lock, and wakes a receiver once.
// Publisher and handlers share Header and Payload, which nobody may change; of a batch up to four messages are freed
// together. All of it works inside a testing/synctest bubble, where leases, delays and
// backoff take no real time.
//
// # Use
//
//	driver := mempubsub.New(mempubsub.Config{})
//	bus := pubsub.New(driver)
//
// In a test that plays several processes, give each its own bus with pubsub.New(driver.Connect()).
//
// The lease is the visibility timeout of Amazon SQS, the single owner of a lane the single active consumer of RabbitMQ,
// the window of IDs the duplicate window of NATS JetStream.
package mempubsub
