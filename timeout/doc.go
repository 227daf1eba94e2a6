// Package timeout bounds how long one operation may take, by giving it a context with a deadline.
//
// It is cooperative: the operation must obey its context, as everything in net/http and database/sql does. A function that
// ignores its context is not interrupted, and the caller waits for it; nothing keeps running behind the caller's back. For
// functions that cannot be made to obey there is [Abandon], to be asked for by name.
//
// # Guarantees
//
//   - The operation's context ends no later than After from the call, and no later than the caller's own deadline.
//   - When this timeout was the reason, the error is a [*Error] that is [ErrTimeout] and context.DeadlineExceeded, with the
//     operation's own error beneath it. When the caller's context ended first, the operation's error is passed on as it is.
//   - A result that the operation returned in time is never turned into an error, even if the deadline passes while it returns.
//   - Whether the operation took effect is in doubt after a timeout: the request may have arrived and only the reply be late.
//   - The timer is released when the operation returns, panics or calls Goexit.
//   - A call in two steps, [Timeout.Start] and [Call.End], is judged by the same rules when it ends, and counted once.
//   - With [Abandon] the caller is back when the time is up, whatever the function does. What runs on is counted; a panic
//     reaches the caller with the stack it came from, and never ends the process when the caller has gone.
//
// # Usage
//
// Two timeouts usually belong round a remote call: one for all attempts, outside the retrier, and one for each attempt, inside
// it. A total timeout alone lets the first attempt that hangs use up everything.
//
//	total := timeout.New(timeout.Config{Name: "checkout", After: 2 * time.Second})
//	attempt := timeout.New(timeout.Config{Name: "bank call", After: 300 * time.Millisecond})
//	charge := backstay.Wrap(bank.Charge, total, retrier, attempt)
//
// What lasts longer than the function that begins it, such as a stream or a proxied connection, is a [Call]:
//
//	call := download.Start(ctx)
//	defer func() { _ = call.End(nil) }() // on every way out
//	if _, err := io.Copy(file, open(call.Context())); err != nil {
//		return call.End(err)
//	}
//
// Timeouts as a stability pattern, and why they belong at every integration point, are described by Michael Nygard (Release
// It!, 2007).
//
// # Cost
//
// An operation that never waits for its context, such as one answered from memory, costs one allocation and no timer. One that
// waits costs about what context.WithTimeout does; a timeout inside another one costs less, since it joins it directly and sets
// no timer where the outer deadline is the earlier.
//
// The context is one of this package's own. What package context derives from it is told of its end on a goroutine that is
// started then; if something other lies between the two, such as a context.WithValue, package context keeps a goroutine for as
// long as what it derived lasts, as it does for every context that is not its own.
package timeout
