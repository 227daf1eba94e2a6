// Package redispubsub is the pubsub driver for Redis Streams, on one server, behind sentinels or on a cluster, from Redis
// 7.0 on. The client library is rueidis.
//
// # Guarantees
//
//	delivery    at least once, to every group; a message leaves a group only by an Ack
//	acks        sent as soon as the answer to those before has come, hundreds in one command when there are many, and
//	            again when the connection was lost; a drain waits for the last ones
//	order       per key, for ordered subscriptions: lane by lane, under a lease that the server fences
//	durability  as the server's append-only file says; see below for what a failover loses
//	duplicates  a message that is published twice, after an error in doubt, is delivered twice, with the same ID
//	in doubt    an error of Publish wraps pubsub.ErrInDoubt when the answer was lost; any other message was not stored
//	delay       none: a DeliverAt in the future is refused, and what is rejected waits with the consumer
//
// Capabilities are read from the server. Durable is true when it keeps an append-only file: then an accepted message
// survives the kill of the server, and with appendfsync always the loss of power. With everysec, which is Redis's
// default, a loss of power costs up to a second or two of messages and acknowledgements. Without the file everything
// ends with the server.
//
// A topic is Config.Lanes streams. Messages stay, handled or not, until MaxAge or MaxLength removes them, and that never
// removes what some group has not handled, unless TrimUnhandled says so: a group that is stopped for good must be
// destroyed (XGROUP DESTROY in every lane), or the topic grows without end. So does one without MaxAge and MaxLength.
// When the server is out of memory, Publish fails and nothing is dropped, provided that maxmemory-policy is noeviction;
// any other policy may evict a whole lane.
//
// # Failover
//
// Redis replicates after it has answered. When a replica takes over, by sentinel, in a cluster or by hand, these are
// lost: messages that were accepted in the last moments, and never reach anybody; acknowledgements of the last moments,
// whose messages come again; leases of lanes taken in the last moments, so that for one lease two members may handle
// messages of one lane, each believing that it is alone. Those who have the lane under the new master win: nothing that
// the other settles is accepted. Config.Replicas has Publish wait until some replicas have a message, in memory. That
// narrows the gap and does not close it: the replica that takes over may be one that does not have it. Where no message
// may be lost, publish through package outbox and keep its rows for longer than a failover takes, or use a broker with a
// quorum.
//
// A server that comes back empty, by FLUSHALL or a restart without persistence, has lost its groups as well. Receivers
// then end with ErrGroupGone. Opening the subscription again makes the group anew; with Start "start" it gets what was
// published since, in order.
//
// # Order
//
// The lane of a message is the FNV-1a hash of its key, or of its ID if it has none, modulo the number of lanes. A member
// of an ordered group takes its share of the lanes, each under a lease on the server's clock with a token that grows
// whenever the lane changes hands. Every acknowledgement names the token and is refused without effect once another
// member has the lane. Reading changes nothing on the server, so a member that is late cannot disturb anybody by it.
//
// When a member comes, the others finish what they hold of the lanes that are to be its own, and hand them over. One that
// leaves hands over at once, with all that is settled and how often the rest was delivered. One that dies holds up its
// lanes for a lease. A group can have at most Lanes members that work.
//
// Up to LaneDepth messages of a lane are unsettled at a time; a key in backoff does not hold up the others. What is
// delivered is counted on the server before, so that Message.Attempt is right for a message that kills its process.
//
// # Unordered groups
//
// They are Redis's consumer groups: XREADGROUP, XACK, and XAUTOCLAIM for what has been idle for a lease, which the
// longest Lease of the group's members decides. Redis has no negative acknowledgement: what is given back is assigned to
// the consumer "-" as idle for years, and other members are told. A consumer is deleted only when it has nothing pending.
// Members fetch no more than they have room for, and, if they take 64 or more in 20 ms, as many ahead as they take in
// that time.
//
// A group is ordered or unordered for good.
//
// # Failures
//
// Receivers outlast the restart of a server and the loss of a connection. They end when the group is gone (ErrGroupGone),
// when the client is closed, and when the server denies access. Settle does not wait for acknowledgements, and tells of
// no trouble with them: Close does, with an error that wraps pubsub.ErrInDoubt.
//
// # On the wire
//
// ID, key and time are the fields ce-id, ce-partitionkey and ce-time of a stream entry, headers are fields of their own
// names, and the payload is ce-data. An entry that another program adds needs none of them: an absent ID becomes that of
// the entry, and a field that comes several times is joined with ", ". All keys of a topic begin with {prefix.topic},
// so that a cluster keeps them on one node; different topics are spread over the nodes. ACLs must allow ~{prefix.* and
// the commands of streams, hashes, sorted sets, EVALSHA, EVAL, SCRIPT LOAD, INFO and, to know appendfsync, CONFIG GET.
//
// # Use
//
//	driver, err := redispubsub.Open(ctx, "redis://127.0.0.1:6379", redispubsub.Config{MaxAge: 7 * 24 * time.Hour})
//	if err != nil {
//		return err
//	}
//	bus := pubsub.New(driver)
//	defer bus.Close()
//
// # Source
//
// Redis Streams and their consumer groups as Redis's documentation describes them; fencing tokens as in Kleppmann, How
// to do distributed locking (2016).
package redispubsub
