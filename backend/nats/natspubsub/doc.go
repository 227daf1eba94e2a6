// Package natspubsub is the pubsub driver for NATS JetStream: an embedded server of package natsembed, or a cluster.
//
// # Guarantees
//
//	delivery    at least once, to every group; a message leaves a group only by an Ack
//	acks        sent at once, confirmed by a round trip every 20 ms, and sent again if the connection was lost before;
//	            those of an ordered group written every 20 ms; a drain waits for the last ones
//	order       per key, for ordered subscriptions: lane by lane, each with one member at a time
//	durability  as Storage, Replicas and the server's sync_interval say; see below
//	duplicates  a message whose ID the topic has seen in the last two minutes is accepted and not stored again
//	in doubt    an error of Publish wraps pubsub.ErrInDoubt when the answer was lost, and only then may the message have
//	            been stored
//	time        Publish returns after Config.PublishTimeout at the latest, also when the connection takes no bytes
//
// The window of duplicates covers the repetition of a Publish in doubt; Capabilities.Dedup is the shortest of the topics
// in use. It also means that a message cannot be published to one topic twice on purpose within two minutes under its
// old ID. Bus.Redrive, which gives each dead letter a pubsub.DedupID of its own, is free of that.
//
// File storage survives the kill of a server: it has written a message to the operating system before it acknowledges
// it, but runs fsync only every two minutes unless it is configured with sync_interval: always. A client cannot see
// that setting; Config.SyncAlways declares it. A stream whose persist mode is async is refused.
//
// A topic is one stream, made when it is first used, with limits retention: messages stay, handled or not, until MaxAge.
// When MaxBytes is reached, Publish fails; nothing unhandled is dropped to make room. Without MaxAge a topic grows for
// ever. With it, what a group has not handled in that time is gone.
//
// # Order
//
// A topic has Config.Lanes subjects, prefix.topic.lane. The lane is the FNV-1a hash of the key, or of the ID for a
// message without one, modulo the number of lanes, which the list of the stream's subjects records: a driver that counts
// otherwise is refused with ErrMismatch.
//
// Each lane of an ordered group belongs to one member. What the group knows of it is a record, the one message of a subject
// in a stream of its own, prefix~~lanes~hash-of-topic: who has the lane, which sequence everything is settled up to, and
// what is settled beyond. The owner replaces the record every quarter of the lease, and every 20 ms while it settles
// something. Each write is conditional on the version that the writer has read, so that a member that was stopped, cut off
// or slow for too long can neither keep a lane nor settle anything of it once another has taken it. The owner
// reads its lanes through short-lived consumers without acknowledgements, up to 128 messages ahead of each, and up to
// Subscription.LaneDepth of a lane are in flight. A key in backoff delays no other key before that is used up, or before
// 4096 later messages of the lane are settled.
//
// Members share the lanes evenly: one that joins has its share within a second or so, or when what is in flight is settled;
// one that leaves hands over at once, with what is settled out of order, so that none of it comes again. The lanes of one
// that dies are taken after a lease and a half, and what it settled in its last 20 ms may come again. The first
// messages of such a lane are then delivered one at a time, until LaneDepth of them are settled: Message.Attempt of the
// first counts the members that have died with it in hand. More members than Lanes have nothing to do. A topic that is
// deleted and made again begins anew for its groups.
//
// Versions before this one kept a durable consumer for each lane, named group+lane. The first member of this version takes
// over where they were and deletes them: members of those versions then end with an error, and must not be started again.
//
// Unordered groups have one durable consumer. A group is one or the other for good.
//
// # Delay
//
// Since version 2.12, and where Config.MaxBytes sets no bound, the server itself holds a message back until its
// DeliverAt, and for up to half a second longer. It waits under a subject of its own and becomes the last message of its
// lane when its time has come, so it does not hold up its key. A stream that was made without this, and a time beyond
// the stream's MaxAge, are refused. An unordered group is sent what waits as well, once and unnoticed: its members drop
// it, which costs less than a filter in the server does for all other messages.
//
// # Failures
//
// Receivers outlast the restart of a server and the loss of a connection. They end when the connection is closed for good
// and when their stream or consumer is deleted. Give New a connection with unlimited reconnects, short pings and a short
// nats.FlusherTimeout, as Open does: a connection that hangs is not noticed before.
//
// A receiver asks for as many messages as its consumer has room for, and ahead of that for as many as it has lately
// taken in 20 ms, if these were 64 or more: a fast consumer does not wait for the server, a slow one keeps nothing from
// the other members. The leases of what is held it extends as long as its owner receives or settles; after a lease without
// either, it gives all of it back, and its lanes.
//
// What an unordered member that is killed or stopped has in hand comes again after a lease and, since the server still
// answers its requests, half a lease more, five seconds at most.
//
// # Permissions
//
// Beside the topics' subjects, those of JetStream's API and _INBOX, a member subscribes to "<Prefix>.~here.>", by which
// Driver.Responders finds it, and one of an ordered group to "<Prefix>.~lanes.>" or "<Prefix>.~views.>".
//
// # On the wire
//
// ID, topic, key and time are CloudEvents attributes in binary mode (ce-id, ce-type, ce-partitionkey, ce-time), so that
// other clients can take part. Header values that NATS would trim or cut, and names beginning with Nats-, which the
// server would obey, travel URL-encoded in the header Backstay-Headers. A message from elsewhere needs none of this: an
// absent ID becomes stream:sequence, and several values of a header are joined with ", ".
//
// # Use
//
//	driver, err := natspubsub.Open(ctx, "nats://127.0.0.1:4222", natspubsub.Config{MaxAge: 7 * 24 * time.Hour})
//	if err != nil {
//		return err
//	}
//	bus := pubsub.New(driver)
//	defer bus.Close()
//
// # Source
//
// JetStream's pull consumers as its documentation and ADR-13 describe them; Jepsen's report on NATS 2.12.1 for what an
// acknowledgement is worth.
package natspubsub
