// Package outbox publishes messages if, and only if, the transaction that speaks of them has committed, and lets a consumer act
// on each of them once: the transactional outbox and the inbox, or idempotent receiver.
//
// A service that changes its database and then sends a message loses one of the two when it dies in between. Here the message
// is a row written in the same transaction; a [Relay] moves committed rows to the broker afterwards.
//
// # Guarantees
//
//   - Delivery: every message of a committed transaction is published at least once; one of a transaction that rolled back,
//     never. Publishing twice happens when a relay dies, or loses its lease, between the broker's acceptance and the deletion of
//     the row: at most one batch, with the same ID and Time. A relay that stops in order, or shares work, repeats nothing.
//   - Order: messages of one key are published in the order in which they were stored, by any number of relays: none is tried
//     before the one ahead of it was taken. This holds for transactions that serialise on the key, which they do when each locks
//     or updates its aggregate before it calls Publish. It is order of first occurrences: a repeated message may follow later ones,
//     and the inbox drops it. Messages with an empty Key have no order.
//   - Isolation of failures: a message that the publisher refuses holds back its own key and no other. After
//     [RelayConfig].MaxAttempts failures it is parked in the table with its error, and its key waits until a person requeues or
//     skips it ([Inspector]). A stored message that cannot be read is parked at once. Nothing is dropped.
//   - Outages: while the publisher takes nothing at all, no failure after the first counts against a message, so that nothing is
//     parked (unless MaxAttempts is 1), and the publisher is tried about once per PollMax. For the same reason a single broken
//     message is parked only once others have been published beside it; until then it is retried, no faster than that. A
//     publisher that refuses a whole call for one message is offered smaller calls until that message stands alone.
//   - Visibility: no cursor passes over rows. A transaction that commits late, with a lower sequence number, is published.
//   - Fencing: keys are divided into 64 buckets, each leased to one relay by the database's clock. A relay that was paused past
//     its lease cannot settle anything in a bucket that another has taken; it gives up the rest, and begins again after a pause. A
//     dead relay's keys are taken over after [RelayConfig].Lease.
//   - Inbox: [Once] gives one effect per consumer and message ID in the consumer's own transaction, and the stored result to
//     duplicates, also to concurrent ones, for as long as [InboxConfig].Retention.
//
// # Usage
//
//	store, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{})   // fixes Tx as *sql.Tx
//	relay := outbox.NewRelay(store, bus, outbox.RelayConfig{})
//	ob := outbox.New(store, outbox.Config{}, outbox.WithRelay(relay))
//	go relay.Run(ctx)
//
//	err = ob.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
//		if _, err := tx.ExecContext(ctx, "UPDATE orders SET state = 'paid' WHERE id = ?", id); err != nil {
//			return err
//		}
//		return ob.Publish(ctx, tx, pubsub.Message{Topic: "orders.paid", Key: id, Payload: body})
//	})
//
// Publish takes the transaction type and nothing else: to pass the database itself, the very mistake that the pattern exists to
// prevent, does not compile. The relay is woken by InTx; otherwise it polls, from 5 ms up to PollMax apart.
//
// On the consumer's side, [Inbox.Handler] makes a handler whose effect on the database happens once per message.
//
// # Limits
//
// Messages with a DeliverAt are refused: a delay is the broker's or the consumer's.
//
// A single key is published one message at a time, since the next may not be tried before the broker has taken the one before
// it. Throughput comes from many keys. The inbox covers effects made through its transaction; a call to a third party inside it
// may be repeated.
//
// The patterns are Transactional Outbox (Chris Richardson, Microservices Patterns, 2018, section 3.3.7) and Idempotent Receiver
// (Gregor Hohpe and Bobby Woolf, Enterprise Integration Patterns, 2003). Fencing numbers on leases follow Martin Kleppmann,
// Designing Data-Intensive Applications, 2017, chapter 8.
package outbox
