// Package policyhttp puts policies round HTTP: [Transport] round a client's http.RoundTripper, [Handler] round a server's
// http.Handler. [PerHost] and [PerKey] choose the policy by the request.
//
// # Guarantees of Transport
//
//   - Status 429 and 5xx are failures for the policies, which see a [*StatusError], yet the caller gets the response: the
//     last one, with its body complete, also when the retrier gave up or a breaker opened meanwhile. One whose body is too long
//     or slow to keep while the retrier waits (64 KiB, 250ms) is closed before the next attempt; if that is then rejected, the
//     caller gets the error.
//   - A request is sent again only if its method is idempotent (RFC 9110) or it carries an Idempotency-Key or
//     X-Idempotency-Key, and only with the same body: from GetBody, or recorded while it was sent, up to 64 KiB. No policy
//     can get round this. A body is never read before the base transport reads it, so streams in both directions keep working.
//   - A discarded response is read up to 64 KiB or for 250ms, then closed, so that connections are reused and nothing leaks. A
//     short one is off the connection before the retrier's delay begins.
//   - Retry-After is honoured, in seconds and as a date.
//   - A timeout bounds the response until its body ends or is closed. One that runs out meanwhile gives the reader a
//     *timeout.Error, and counts that. A bulkhead's permit is held as long.
//   - Other policies judge the response at its headers: what happens to the body does not reach a breaker.
//   - All this holds over HTTP/2 as over HTTP/1: a response that is given up or runs out of time resets its stream, and the
//     connection serves the others.
//   - The request and its header are not modified; its body is always closed. Panics of the base pass through, and everything
//     held is given back.
//
// A response with a status that is not a failure must be closed by the caller, as always: until then it holds its permit.
//
// # Guarantees of Handler
//
//   - A request that a policy refuses never reaches the handler. It is answered with 429 (rate limit) or 503 (anything else) and
//     a Retry-After in whole seconds.
//   - The handler runs at most once, and its own 429 and 5xx count as failures.
//   - A handler whose time was over before it had written anything is answered for with 503. The timeout is cooperative.
//   - Flushing, hijacking, trailers, informational statuses, sendfile, push and http.ResponseController work as without policies.
//     A permit is held until the handler returns, whatever it hijacked.
//
// # Usage
//
//	client := &http.Client{Transport: policyhttp.Transport(nil, total, retrier, policyhttp.PerHost(breakers), bulkhead, attempt)}
//	server := &http.Server{Handler: policyhttp.Handler(mux, limiter, bulkhead, timeout)}
//
// The order is the canonical one of the root package. A client that calls several hosts wants a breaker for each, hence
// PerHost. A whole-call limit such as http.Client.Timeout still counts. Where the policies should judge by something else than
// the status, give them a classifier that looks at StatusError.Code.
//
// A policy that is none of this module's control types works too: it is over at the headers, the contexts it derives do not cut
// the body off, and what its contexts allow is kept as a deadline for the body.
//
// Retry-After and the idempotency of methods are those of RFC 9110 (HTTP Semantics, 2022); the Idempotency-Key is that of the
// IETF draft "The Idempotency-Key HTTP Header Field". Shedding load with an answer that says when to come back is from Betsy
// Beyer and others, Site Reliability Engineering (2016), chapter 21.
package policyhttp
