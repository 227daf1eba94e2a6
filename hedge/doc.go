// Package hedge starts a second call where the first one is late, and takes the answer that comes first.
//
// Use it for reads whose slowest one in a hundred is far slower than the rest, against a dependency with several replicas.
// Putting a hedge round a function is the statement that it may run twice, also at the same time: that it is idempotent, or
// carries an idempotency key. Do not use it where slow means overloaded: a second call is more load. The budget bounds that
// harm, but cannot make it a gain.
//
// # Guarantees
//
//   - The second call begins only when the first has run for the delay and not returned, and there is never a third. A first
//     call that fails before that is a failure: hedging is not retrying.
//   - Of any n calls at most Budget×n + 10 get a second one, so that a dependency which has become slow as a whole is not
//     given twice the load.
//   - The first success is returned as soon as it is there. The context of the other call is cancelled then, and the value that
//     it may return all the same goes to discard: no value is lost, none is given twice.
//   - When both fail the *[Error] unwraps to both causes. When the second did not run, being rejected locally, the first cause is
//     returned as it is.
//   - The caller is back at once when its context ends, even if the function ignores that; no call begins on a context that is
//     done.
//   - A panic reaches the caller with the stack it came from, Goexit as Goexit. A panic of a call that nobody waits for any more
//     is counted, and never ends the process.
//   - The delay that is learned does not fall because slow calls are cut short.
//
// # The delay
//
// With Config.After alone the delay is fixed. With Config.Quantile it is that quantile of the latency of the latest 1,000 to
// 2,000 first calls, kept in a histogram whose buckets are at most an eighth wide, as HdrHistogram has them, and rounded up to the
// end of its bucket. So at 0.95 at most about one call in twenty gets a second one, also where all take the same time. Failures teach nothing; a first call that lost counts with the time it had taken by then, which
// is above the delay, as it would have been.
//
// # Usage
//
//	h := hedge.New(hedge.Config{Name: "stock", After: 50 * time.Millisecond, Quantile: 0.95})
//	stock := hedge.Wrap(h, fetchStock, nil)
//
// The context of the winner ends too when the call returns, so read what you need inside the function: the body of a
// response, the rows of a query. [Attempt] tells the function which call it is, to ask another replica the second time. A hedge
// goes inside a breaker, and round a bulkhead and the attempt timeout. It is a combinator on functions, not a policy: it has to
// choose between values.
//
// The technique is described by Jeffrey Dean and Luiz André Barroso, "The Tail at Scale" (Communications of the ACM, 2013); the
// budget is that of gRPC and Finagle.
package hedge
