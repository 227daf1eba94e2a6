// Package backstay composes resiliency policies round functions.
//
// The unit of everything is a function that takes a context and one value and returns one value and an error: a [Func]. A
// policy turns such a function into a better one. The packages beside this one each hold one pattern; this package puts them
// together:
//
//	charge := backstay.Wrap(bank.Charge, retrier, breaker, bulkhead, attemptTimeout)
//	receipt, err := charge(ctx, order)
//
// # Guarantees
//
//   - The first policy is the outermost. Composition happens once, in Wrap; a call that succeeds through the control types of
//     this module allocates nothing (a timeout costs what its context costs).
//   - Results travel by value. No attempt can see or overwrite the result of another, not even with a foreign policy that breaks
//     its contract and lets an operation run on after it has returned.
//   - The caller's context reaches the function, derived by the policies on the way. Panics and runtime.Goexit pass through; every
//     policy gives back what it holds.
//
// # Order
//
// The canonical order, outermost first, is: fallback, total timeout, retry, breaker, rate limit, bulkhead, attempt timeout. The
// fallback sees the final verdict; the total timeout bounds all attempts; each attempt asks the breaker, so that retries end
// when it opens; a permit of the bulkhead is held for one attempt only, and not while waiting for the next.
//
// # Foreign policies
//
// Anything with the method of [Policy] can take part; it costs a closure for each call. What such a type must keep to is
// checked by the package policytest.
//
// Functions that take a context and an argument as the unit of composition, and filters that are functions on them, are
// from Marius Eriksen, "Your Server as a Function" (PLOS 2013).
package backstay
