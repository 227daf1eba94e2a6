// Package kafkapubsub is the pubsub driver for Apache Kafka, and for what speaks its protocol, on franz-go.
//
// # Guarantees
//
//	delivery    at least once, to every group; a record leaves a group only by an Ack
//	order       per key, for ordered subscriptions: a partition is a lane, which one member of the group has at a time
//	durability  acknowledged by all in-sync replicas (acks=all); how many those are, and whether they fsync, is the topic's
//	            and the brokers' affair: set min.insync.replicas
//	duplicates  none from the producer's own repetitions, which are idempotent; a Publish that is called again stores
//	            the message again, with the same ID
//	in doubt    an error of Publish wraps pubsub.ErrInDoubt unless the brokers refused the message, or it was not sent
//	acks        committed every CommitInterval, by a rebalance, and by Close, whose error wraps pubsub.ErrInDoubt when
//	            it cannot; a member that crashes repeats what was not committed
//	time        Publish returns after Config.PublishTimeout at the latest
//
// There are no temporary groups, no DeliverAt and no Dedup: Kafka has none of them. Backoff is held by the consumer.
//
// # Settling out of order
//
// Kafka keeps one number per partition and group. The driver commits the offset of the first record that is not settled,
// never a later one, so a record that waits for its next attempt is safe, and puts into the metadata of the commit which
// records beyond it are settled, and how often the others were delivered. The next member reads that: a drain or a
// rebalance hands nothing out again that was settled, and a message that kills its process is counted, while
// it is among the first that the process gets. At most MaxAhead records of a partition, and the rest of a batch, are held
// beyond the first unsettled one; then the partition is paused, and others go on.
//
// # Rebalancing
//
// A group is a Kafka group of the name prefix + group + "." + topic, with cooperative-sticky assignment: only partitions
// that move stand still. A member joins with its first Receive. When a partition is to move, nothing more of it begins,
// even if it was received; handlers that run are waited for, for up to RevokeTimeout; then the position is committed and
// the partition goes. Beyond RevokeTimeout, the next member gets the message while the handler still runs (Stats.Overrun).
//
// A member whose heartbeats are not answered for the session timeout begins nothing more, since others may have its
// partitions: that holds for a process that was stopped and goes on, too. An owner that neither receives nor settles for a
// lease leaves the group. A member that is killed holds up its partitions for the session timeout, which is the
// subscription's Lease within 6s and 5m, unless Config says otherwise.
//
// # Traps of Kafka
//
// A group's position is forgotten when it has had no members for offsets.retention.minutes (a week): then Start counts
// again. Retention deletes records, handled or not, and compaction those with the same key: do not compact a topic, except
// to keep only the latest. Partitions that are added to a topic are noticed within a minute and read from their start, but
// move keys, whose order does not hold over the change. Topics whose names differ in '.' and '_' only collide, and are
// refused. A group and its dead-letter topic need the rights to be made, or to exist (Topics "check"). A topic that
// is deleted is not noticed by members that wait for its records.
//
// # On the wire
//
// ID, topic and time are CloudEvents attributes in binary mode (ce_id, ce_type, ce_time); the key is the record's, and
// chooses the partition as Kafka's own clients do (murmur2). Records without a key are spread in turn. A record
// from elsewhere needs none of this: an absent ID becomes topic:partition:offset, and several values of a header are
// joined with ", ".
//
// # Tests
//
// They run on franz-go's kfake, in this process or in a child that is killed. It shows the protocol: groups, sessions,
// commits, refusals. It has no replication, so nothing is shown of elections, of acks=all with replicas that lag, or of
// data that unclean elections lose; its brokers never throttle; and its speed is an upper bound, not Kafka's.
//
// # Use
//
//	driver, err := kafkapubsub.Open(ctx, "kafka://10.0.0.1:9092,10.0.0.2:9092", kafkapubsub.Config{Replicas: 3},
//		kgo.DialTLS(), kgo.SASL(scram.Auth{User: "shop", Pass: secret}.AsSha256Mechanism()))
//	if err != nil {
//		return err
//	}
//	bus := pubsub.New(driver)
//	defer bus.Close()
//
// # Source
//
// Kafka's KIP-98 (idempotent producer), KIP-429 (incremental cooperative rebalancing) and KIP-480; the bitmap of what is
// settled beyond the offset is that of Confluent's Parallel Consumer.
package kafkapubsub
