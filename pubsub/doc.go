// Package pubsub publishes messages to topics and handles them in groups of competing consumers, over any broker that
// has a driver.
//
// # Guarantees
//
// Delivery: at least once. When Bus.Publish returns nil, the broker has accepted every message, as durably as
// Capabilities.Durability says, and every group whose Bus.Open had returned gets it. Each group gets every message,
// and within a group one member at a time. A message leaves its group only after a handler returned nil for it, or
// after it was published to the group's dead-letter topic. Duplicates happen: after a crash, a lost lease, or a
// publish in doubt. They carry the same ID; package outbox has an inbox that turns them into one effect.
//
// Publish waits no longer than its context and WithPublishTimeout (30s) allow. A *PublishError says of each message that
// failed whether it is in doubt: perhaps accepted, the answer lost.
//
// Order: none, unless Subscription.Ordered asks for it. Then at most one message of a key is being handled in the
// group, in the order of publishing by one publisher; a message that fails holds back its key and nothing else, and
// takes no handler slot while it waits. Once it became a dead letter, its key goes on, or with HoldKey follows it
// unhandled until a redrive or a new member of the lane. Order is over first occurrences: a late duplicate may follow.
//
// Delay: a message with DeliverAt is delivered no sooner, and takes its place in the order of its key then.
//
// Failure: the handler's result is the verdict. An error, a panic or runtime.Goexit has the message delivered again
// after a backoff with full jitter; RetryAfter sets the delay, DeadLetter ends the attempts. After MaxAttempts the
// message goes to DeadLetterTopic with the story in its headers. If it cannot be published there, it stays where it is
// and the publish is tried again. One that is delivered more than twice MaxAttempts, since it kills every process that
// handles it, becomes a dead letter unhandled. Bus.Redrive gives dead letters back to their group, and to no other, at
// least once and in the order of their keys.
//
// Rejection: an error with Rejected() true, as it comes from a policy round the handler that refused the call (an open
// breaker, a full bulkhead), is no attempt and never makes a dead letter. The message waits here, leased and without a
// handler slot, for as long as the error's RetryAfter says or the backoff, and is tried again. While more than LaneDepth
// messages wait the consumer receives no others, so an outage leaves the rest with the broker. Wrap such an error where
// it shall count, for what the handler has called itself.
//
// Temporary groups end with their consumer. They have no dead letters: what they cannot handle is dropped and counted.
//
// Leases: the consumer extends the lease of what it holds, handled or waiting, up to the handler's HandleTimeout. A
// handler that is still running then has lost its message to another member once the lease is over; its key stays
// blocked here until it returns.
//
// Concurrency: at most Concurrency handlers run at a time, at most twice as many messages are held that could be
// handled at once, and the number of goroutines is Concurrency plus a constant. An ordered consumer holds in addition
// up to LaneDepth messages per lane that wait for their key. With RunBatch this goes for batches of up to BatchSize
// messages, at most one of a key where there is order; each message gets its own verdict.
//
// Drain: when the context of Consumer.Run is cancelled, running handlers finish, undisturbed, within DrainTimeout;
// what has not begun goes back. Past the grace, handlers are cancelled, their messages go back, and Run returns
// ErrDrainTimeout without waiting for one that ignores its context. Nothing is acknowledged whose handler did not
// return nil.
//
// What a driver cannot give, Open and Publish refuse with a *CapabilityError.
//
// # Use
//
//	bus := pubsub.New(driver)                                   // mempubsub.New(…), or one of backend/…
//	defer bus.Close()
//	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders.placed", Group: "billing"})
//	…
//	err = c.Run(ctx, func(ctx context.Context, m pubsub.Message) error { … })
//
// Open before the first Publish that the group must not miss. A Topic gives values instead of messages. A Handler is a
// plain function: put breakers and timeouts round it with backstay.WrapErr. Retry there only what is quick, since the
// consumer's own backoff keeps no handler busy.
//
// Use it for events and work that tolerate repetition. To publish what a database transaction decides, use package
// outbox, or a crash in between loses it.
//
// # Drivers
//
// A Driver knows nothing of retries or drain: those are written once, here. Package mempubsub is the driver in memory;
// package pubsubtest proves a driver.
//
// # Sources
//
// Publish-Subscribe Channel, Competing Consumers and Dead Letter Channel are of Hohpe and Woolf, Enterprise Integration
// Patterns (2003), the split into portable type and driver of gocloud.dev, lanes of Kafka, full jitter of Brooker,
// Exponential Backoff and Jitter (2015).
package pubsub
