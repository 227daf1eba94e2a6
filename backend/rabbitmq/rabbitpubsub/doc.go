// Package rabbitpubsub is the pubsub driver for RabbitMQ 3.10 and later, with quorum queues and publisher confirms.
//
// # Guarantees
//
//	delivery    at least once, to every group that exists; a message leaves a group only by an Ack
//	acks        written within 2 ms, those of a lane that is being given up when it is; confirmed by a round trip every second
//	            and by Close, which waits for the last ones; what a lost connection has swallowed comes again
//	order       per key, for ordered subscriptions: lane by lane, up to LaneDepth messages of a lane in flight
//	durability  when Publish returns nil, a majority of the replicas of each group's queue has the message in its fsynced log
//	            (of a temporary group: one server, which writes it to disk)
//	duplicates  are not recognised: a message published twice is delivered twice, with one ID
//	in doubt    an error of Publish wraps pubsub.ErrInDoubt when the answer was lost, or when a queue has rejected the
//	            message, since other groups of the topic may have it; any other says that nobody has it
//	time        Publish returns after Config.PublishTimeout at the latest, also when the broker takes no bytes
//
// Nothing is kept for groups to come: a message goes to the groups that there are. So a subscription cannot begin at
// the "start", and Bus.Redrive, which would, is refused; dead letters are read by a consumer of their topic. A topic
// without a group refuses messages (ErrUnroutable), since accepting them would lose them; see Config.Unroutable.
//
// # Topology
//
// A topic is an exchange, prefix:topic, of the type "topic". A group is a quorum queue, prefix:topic:group, that is bound
// to it; an ordered group has one per lane, with a single active consumer: prefix:topic:group for lane 0, and
// prefix:topic:group:1 and so on. The routing key of a message is its lane: the FNV-1a hash of the key, or of the ID without
// one, modulo Config.Lanes. The broker itself refuses a service that counts lanes otherwise, or that opens an ordered group
// unordered (ErrMismatch). What no group takes goes to the exchange prefix:topic::unrouted:lanes, the alternate of the
// topic's. A queue costs the broker three open files.
//
// A group remains, and collects messages, until somebody deletes its queues. One of its queues that is deleted while it
// is consumed ends the consumer with ErrMissing. Temporary groups have a classic queue, which goes with the last member, or a minute
// after its death.
//
// Dead letters go to the exchange of their topic. Until that has a group they wait in the queue prefix:topic::kept, which is
// bound to the alternate; the first group to open gets them.
//
// # Attempts
//
// One place counts: the portable type, from the broker's x-delivery-count. The queues have a delivery limit that is never
// reached, since the broker would drop messages there. A message that was fetched ahead and given back, as in a drain,
// counts as delivered; so an unordered receiver fetches only what its owner asks for at a time, until the owner takes
// messages quickly, and then up to Config.Prefetch.
//
// The delay of a retry is the consumer's: the message stays leased. Keep BackoffMax below the broker's consumer_timeout,
// which is 30 minutes, or it closes the channel.
//
// # Leases and order
//
// The broker has no leases. It takes back what a member holds when its connection is lost: at once when the process dies,
// after two to three times Config.Heartbeat when it is stopped or cut off. Inside a living process the receiver gives back
// what is not extended. A member that was stopped for longer begins no message of an ordered lane any more that the broker
// may have given away meanwhile; a handler that was running cannot be recalled.
//
// The members of an ordered group share the lanes. A lane is with the member that has consumed its queue for the longest time;
// the others stand by, and get it when that one goes: what is not settled then comes again, in order, before what is later.
// Once a second a member looks at how many there are. If it has more than its share, it gives lanes up: it handles what it
// has of them and acknowledges that in the end, before the next member is given any. A lane with a message that takes longer
// than HandleTimeout, its attempts and the waits between them together, goes on meanwhile and is tried again after ten times
// as long. Where the number of lanes is no multiple of that of members, some have one more than others.
//
// To be counted, the members consume a queue without messages, prefix:topic:group::members, and those with too few lanes
// prefix:topic:group::wanting. Both go a minute after the last member. Without them, as with Config.Topology "check" or "trust"
// where nobody else makes them, lanes stay with the member that came first.
//
// # Failures
//
// Publishing and consuming have a connection each, so that a broker which blocks publishers, for its memory or disk alarm,
// still delivers and takes acknowledgements. Publish says ErrBlocked of what was not sent. Lost connections are made again,
// for ever, and what was declared is declared again. The server must have had a second or so to write down a new queue: version 3.10 may lose
// the use of one when it is killed before.
//
// # On the wire
//
// ID, topic, key and time are CloudEvents attributes in binary mode (headers cloudEvents_id and so on), the ID also the
// message-id. Headers of the caller that the broker would obey (CC, BCC, x-…) travel URL-encoded in backstay-headers. A message
// from elsewhere needs none of this and may have any routing key, unless an ordered group is to get it: there the key is
// the number of a lane. Without an ID it gets a random one on each delivery.
//
// # Use
//
//	driver, err := rabbitpubsub.Open(ctx, "amqp://user:password@broker:5672/vhost", rabbitpubsub.Config{})
//	if err != nil {
//		return err
//	}
//	bus := pubsub.New(driver)
//	defer bus.Close()
//
// # Source
//
// RabbitMQ's guides to quorum queues, consumers (single active consumer) and publisher confirms.
package rabbitpubsub
