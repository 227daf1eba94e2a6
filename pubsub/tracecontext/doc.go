// Package tracecontext carries the W3C Trace Context of a request through messages: from the context of the publisher
// into headers, and from headers into the context of the handler.
//
// # Guarantees
//
// Pass-through: this package has no tracer. It makes no trace, no parent-id and no sampling decision; every message and
// every context gets the trace that came in, as it came in, which is what the Recommendation asks of a service that
// does not collect traces. All hops therefore have the parent-id of the last tracer. To have a span for each hop, wrap
// publisher and handler with backend/otel instead.
//
// Strictness: what comes from outside is believed only if it is valid. A traceparent that is malformed, all zero in one
// of its IDs, of version ff, or there twice is dropped, and its tracestate with it, so that a trace begins anew behind
// it. A tracestate that is malformed, has a key twice or more than 32 members is dropped alone. A traceparent of a
// later version is read as far as version 00 goes and goes on as version 00, with the sampled flag alone.
//
// Size: a tracestate of more than 4096 bytes is truncated by whole members, as the Recommendation prescribes: those of
// more than 128 bytes first, then from the end. Brokers limit headers, and the state of a stranger must not make a
// message too large to publish.
//
// Precedence: a message that has a traceparent of its own keeps it, valid or not. So an outbox relay, which publishes
// with a context of its own, sends each message with the trace of the transaction that wrote it.
//
// Concurrency: everything here is safe for concurrent use. Headers are copied before they are changed.
//
// # Use
//
//	publisher := tracecontext.Publisher(bus)
//	err := publisher.Publish(ctx, m)                        // with the trace of ctx
//	…
//	err = consumer.Run(ctx, tracecontext.Handler(handle))   // handle finds the trace in its context
//
// At the edge, where a request comes in over HTTP, Parse reads its headers and NewContext puts the trace into the
// context.
//
// # Sources
//
// W3C Recommendation Trace Context, Level 1 (23 November 2021): sections 3.2 traceparent, 3.3 tracestate and 3.4
// mutating. Header names are written in lower case and read in any case.
package tracecontext
