// Package oteltrace makes OpenTelemetry spans by wrapping: functions, HTTP clients and servers, publishers and handlers of messages,
// outboxes and steps of sagas. The trace goes along with all of them as W3C Trace Context.
//
//	t := oteltrace.New(provider)
//	client := &http.Client{Transport: t.Transport(http.DefaultTransport)}
//	server := t.Middleware(mux)
//	publisher := t.Publisher("nats", bus)
//	err := consumer.Run(ctx, t.Handler("nats", "billing", handle))
//	publish := oteltrace.Outbox(t, ob.Publish)                 // in the transaction
//	relay := outbox.NewRelay(store, t.Publisher("nats", bus), cfg)
//
// # Guarantees
//
//   - Transparent: results, errors and panics go through as they are, on the goroutine and with the stack they have; requests and
//     messages that are handed in are not changed.
//   - Every span that is begun is ended, when the wrapped function returns or panics.
//   - What came with a message is believed only if it is valid; see package tracecontext.
//   - A message that has a valid traceparent keeps it, and its spans join that trace, with a link to the context at hand. So what a
//     relay sends belongs to the trace of the transaction that wrote it.
//   - What may be secret stays out: of a URL neither query nor user, no header, no payload, no text of a query.
//   - Not installed means not there: what is not wrapped has no span, and nothing is read from globals.
//
// Put the wrapper round a policy to see the whole call, and inside retry to see each attempt. An attempt of retry over HTTP is counted
// in http.request.resend_count.
//
// # Cost
//
// What is not wrapped pays nothing, and what registers its metrics next to nothing (package otelmetrics). A span is of another order:
// nearly all of it is the SDK's. Both spans of an HTTP call together add two to three microseconds where they are not sampled and
// seven to ten where they are recorded (BenchmarkBothSpans). That is some 5 and 15 percent of the fastest remote call there is, HTTP without
// a body inside one machine and with both ends in one process (BenchmarkRemoteCall), and nothing beside one that waits for a network
// or a disk. So put spans round calls of other processes, not round functions of nanoseconds, and sample.
//
// What a sampler sees is the name, the kind and, for HTTP, the method with the path on the server's side or the address on the
// client's; the other attributes of HTTP are put together for spans that are recorded.
//
// # Spans
//
//	Func         name                  internal
//	Query        {operation} {target}  client     semantic conventions for databases
//	Transport    {method}              client     for HTTP; until the header of the response is there
//	Middleware   {method} {route}      server     for HTTP; the route is the pattern of http.ServeMux
//	Outbox       create {topic}        producer   for messaging; one for each message
//	Publisher    send {topic}          producer   for messaging; one for each message
//	Handler      process {topic}       consumer   for messaging; a child of the message's trace
//	Step         {saga} {step} {do|undo}  internal  backstay's own attributes: there is no convention for sagas
//	Branch       {saga} {group}/{branch} {do|undo}  internal  the same
//
// An error sets error.type to its Go type, or to the status of HTTP, and the status of the span. Servers count statuses from 500 as
// errors, clients from 400.
//
// # Sources
//
// W3C Recommendation Trace Context, Level 1; OpenTelemetry semantic conventions 1.43.0, of which those for messaging are not stable
// yet.
package oteltrace
