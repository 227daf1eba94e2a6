// Package retry repeats an operation that failed, with growing random delays, within the caller's deadline.
//
// Putting a retrier round a function is the statement that it may be repeated: that it is idempotent, or carries an
// idempotency key. Retry in one layer only, the one nearest to the fault that knows this; retries in several layers multiply.
//
// # Guarantees
//
//   - The operation runs at most MaxAttempts times, never two at once, never after the caller's context is done: a context that
//     is done already means no attempt at all.
//   - No sleep is begun that the deadline would cut short: the retrier gives up at once, with both errors. A cancellation ends
//     a sleep at once. There is no sleep after the last attempt.
//   - A local rejection (an error whose own Rejected method says so, such as that of an open breaker) and a permanent error (see
//     [Permanent]) are not repeated, unless [WithRetryable] asks for it.
//   - RetryAfter on an error is honoured: the next attempt comes no earlier than it says.
//   - The last cause is never lost: the [*Error] of a retrier that gave up unwraps to it.
//   - Retriers that share a [Budget] make, in any time t with n calls that succeed, at most Ratio×n + MinPerSecond×t + Burst
//     retries.
//   - Nothing else is shared between calls: one Retrier serves any number of goroutines, and each call has its own attempts and
//     delays.
//
// A call whose first attempt succeeds allocates nothing, takes no lock and reads no clock. A retry without delay touches no
// timer.
//
// # Delays
//
// By default the nth delay is random between 0 and InitialInterval × Multiplier^(n-1), at most MaxInterval: exponential
// backoff with full jitter, from Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015). Without jitter,
// clients that failed together come back together. [WithBackOff] takes any schedule of github.com/cenkalti/backoff/v4 instead.
//
// # Budgets
//
// Retries are what turns an outage of seconds into one of hours: while a service is overloaded they are the load that keeps
// it so (Bronson et al., "Metastable Failures in Distributed Systems", HotOS 2021). A [Budget] ties them to what the service
// still manages. It is a token bucket as in Finagle's RetryBudget, with the difference that only a call that succeeds pays in,
// as in Brooker, "Fixing retries with token buckets and circuit breakers" (2022): with nothing succeeding, a share of all calls
// would be paid for still, and 20 % more is too much for a service that was at 90 %. Give each dependency one, and share it
// between all retriers that call it.
//
// # Usage
//
//	r := retry.New(retry.Config{Name: "bank", MaxAttempts: 4})
//	charge := retry.Wrap(r, bank.Charge)
package retry
