// Package fallback answers from somewhere else when an operation fails: a cached value, a default, a second supplier, a promise
// to do it later.
//
// Use it where an older, poorer or later answer is better than none, and let the caller see which it got. Do not use it to hide
// errors that somebody should act on, nor with an alternative that depends on what has just failed.
//
// # Guarantees
//
//   - The operation runs first, once. An alternative runs only after it has returned an error, in the order given, until one
//     answers; a call that succeeds costs one comparison.
//   - No alternative runs for a caller whose context is done: the operation's error is passed on.
//   - The first cause is kept. Every alternative sees it, and when all have failed the *[Error] unwraps to it and to theirs.
//   - The answer of an alternative is visible as such, through the context: see [Observe].
//   - A panic is a bug, not a failure to fall back from: it goes on up.
//
// # Usage
//
//	f := fallback.New(fallback.Config{Name: "price"})
//	price := fallback.Wrap(f, fromSupplier,
//		fallback.Only(isOutage, fromCache),
//		listPrice)
//
// where fromCache and listPrice are functions such as
//
//	func fromCache(ctx context.Context, sku string, cause error) (Price, error)
//
// A fallback goes outermost, round retries and breakers, so that it sees their verdict. It is a combinator on functions, not a
// policy: it has to make a value.
//
// The pattern is described by Michael Nygard as part of "Steady State" and "Fail Fast" (Release It!, 2007) and by Ben
// Christensen for Hystrix (Netflix, 2012); the warning about alternatives that share the fault is Jacob Gabrielson's,
// "Avoiding fallback in distributed systems" (Amazon Builders' Library, 2019).
package fallback
