// Package requestreply calls a function in another process through messages: the request goes to a topic, where one
// member of a group runs it, and the reply comes back to the caller who waits for it.
//
// # Guarantees
//
// Execution: at least once, as package pubsub delivers. A server that dies, is drained, or cannot publish its reply has
// the request run again, by another member if there is one; the caller gets the first reply and later copies are
// dropped and counted. Every request has an idempotency key, which the function reads with IdempotencyKey to make a
// repetition harmless. A caller that repeats a Call on its own sets it with WithIdempotencyKey, so that the attempts
// share it.
//
// Outcome: an error of Call says what happened. A *RemoteError is the server's answer: executed, unless NotExecuted is
// set. An *Error was made on this side: not executed, unless InDoubt is set, or it says that the reply is undecodable.
// A Call that ends after its request was accepted and before a reply is in doubt, and matches pubsub.ErrInDoubt.
//
// Deadline: the request carries how long the caller will still wait, and when it was sent. The context of the function
// ends at the earlier of two times: that long after the request arrived, which needs no common clock, and that long
// after it was sent, plus ServerConfig.MaxClockSkew, which counts the time in queues. A request past this deadline is
// not run; its caller is told.
//
// Errors: what the function returns becomes a *RemoteError at the caller, with a code, at most 1 KiB of its text, and
// its answers to Permanent and RetryAfter. The request is acknowledged: it is the caller who decides on a repetition,
// not the broker. The text of an error is therefore seen by callers.
//
// Memory: a client has at most ClientConfig.MaxCalls calls outstanding and refuses more with ErrFull. Close ends those
// that wait.
//
// Replies go to the topic of the requests with ".reply" appended, or to one below that, and a server answers to no
// other topic: a request cannot make it write where the caller could not. A late reply, and one that is addressed to
// another client of the same reply topic, is acknowledged and counted.
//
// # Use
//
//	client, err := requestreply.NewClient[PriceRequest, Price](ctx, bus, requestreply.ClientConfig{Topic: "prices"})
//	defer client.Close()
//	price, err := client.Call(ctx, PriceRequest{SKU: "a-1"})
//
// and in another process
//
//	server := requestreply.NewServer(bus, requestreply.ServerConfig{}, lookUpPrice)
//	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "prices", Group: "pricing"})
//	err = c.Run(ctx, server.Handle)
//
// Call is a plain function: put timeouts, breakers and retries round it with backstay.Wrap. A breaker or bulkhead of
// the server that refuses to run a request is a failure to the caller, marked NotExecuted.
//
// Use it where the network between has brokers and no addresses, or where a server that is away for seconds should not
// fail its callers. Where a connection to the server is possible, HTTP or gRPC answer sooner and with less doubt.
//
// # Sources
//
// Request-Reply, Return Address, Correlation Identifier and Message Expiration of Hohpe and Woolf, Enterprise
// Integration Patterns (2003). The deadline as a remaining duration follows gRPC over HTTP/2 (grpc-timeout).
package requestreply
