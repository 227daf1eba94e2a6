// Package breaker is a circuit breaker: it stops calling a dependency that keeps failing or has become slow, and finds out
// with a few probes when it is well again.
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
//   - The first opening lasts exactly OpenDelay. Only openings in a row last longer, up to MaxOpenDelay.
//   - Readers see without traffic that the delay is over, or that too many calls under way have become slow.
//   - A [Set] keeps at most MaxKeys breakers, and at most the share MaxOpenRatio of them open.
//   - Time is monotonic: setting the wall clock changes nothing.
//
// # What opens it
//
// A closed breaker judges the latest Window calls, or those that ended within WindowTime. It opens when FailureRatio of them
// failed or SlowRatio of them took SlowCall or longer, once there are MinimumCalls, or after ConsecutiveFailures. A call that
// hangs is slow as soon as SlowCall is over, not only when it ends; this is noticed by the next call, to a sixteenth of
// SlowCall. What counts as a failure is told by [Classify]: a cancellation by the caller and a local rejection say nothing
// about the dependency, a deadline that ran out does.
//
// A window of calls costs least and suits steady traffic; with little traffic it may hold results that are hours old, and a
// window of time forgets those. An operator may hold the breaker open or closed with Mode, and "metrics_only" shows what a
// Config would do before it is let loose.
//
// # Usage
//
//	b := breaker.New(breaker.Config{Name: "bank"})
//	charge := breaker.Wrap(b, bank.Charge)
//
// [Breaker.Do] takes a closure, [Breaker.Acquire] gives a permit to code that is not shaped like a function. For a breaker per
// host or tenant make a [Set] and use [WrapBy]:
//
//	hosts := breaker.NewSet[string](breaker.SetConfig{Name: "hosts"})
//	fetch := breaker.WrapBy(hosts, hostOf, client.Fetch)
//
// Config is data and can be changed while running; hooks and the classifier are options and fixed. [Breaker.State] and
// [Breaker.Stats] can be read at any time.
//
// The pattern is Michael Nygard's (Release It!, 2007); the states and their names follow Martin Fowler's article
// "CircuitBreaker" (2014). The cap on what may be open at once is that of Envoy's outlier detection, and a full Set chooses
// whom to drop by the second-chance algorithm (F. J. Corbató, A Paging Experiment with the Multics System, 1968).
package breaker
