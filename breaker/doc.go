// Package breaker is a circuit breaker: it stops calling a dependency that keeps failing, and finds out with a few probes
// when it is well again.
//
// Put one breaker in front of each thing that can fail by itself: a host, a shard, a tenant's database. Do not use one for
// in-process work, whose failures are bugs, nor as a limit on load, which is what a bulkhead is for.
//
// # Guarantees
//
//   - While open, no operation runs: the caller gets a [*Error] that is [ErrOpen], at once and without an allocation.
//   - While half-open, at most Probes operations run; all of them must succeed to close, one failure opens again. Probes that
//     outlive ProbeTimeout are replaced.
//   - A permit belongs to the generation it was given in. A result that arrives later, after the breaker has changed its
//     state, changes nothing.
//   - A permit is released on every way out: a panic or Goexit of the operation counts as a failure and goes on up with its
//     own stack.
//   - Time is monotonic: setting the wall clock changes nothing.
//
// A closed breaker judges the latest Window calls. It opens when FailureRatio of them failed, once there are MinimumCalls, or
// after ConsecutiveFailures. What counts as a failure is told by [Classify]: a cancellation by the caller and a local
// rejection say nothing about the dependency, a deadline that ran out does.
//
// # Usage
//
//	b := breaker.New(breaker.Config{Name: "bank"})
//	charge := breaker.Wrap(b, bank.Charge)
//
// [Breaker.Do] takes a closure, [Breaker.Acquire] gives a permit to code that is not shaped like a function. Config is data
// and can be changed while running; hooks and the classifier are options and fixed. [Breaker.State] and [Breaker.Stats] can
// be read at any time.
//
// The pattern is Michael Nygard's (Release It!, 2007); the states and their names follow Martin Fowler's article
// "CircuitBreaker" (2014).
package breaker
