// Package saga runs a long business transaction as a sequence of steps, each with an effect of its own in some system, and
// undoes what was done, last step first, when one of them fails for good.
//
// # Guarantees
//
//   - No instance is lost. What Start has acknowledged runs on, after a crash and on any node that knows its definition,
//     until it is completed, compensated, or stuck for a person to repair.
//   - Each Do and Undo that is due runs at least once, and its result is recorded once. A step is repeated only if it failed
//     or if its node was lost before the result was in the store: at most once for each such loss.
//   - Steps of an instance run one at a time and in order, but for the branches of a Parallel group, which run at once; Undo
//     runs in reverse order, branches too. Two nodes run the same step only if
//     the one has lost its lease and its attempt does not heed its context. A node that has lost its lease records nothing.
//   - An attempt that fails leaves no trace in the state: each gets a fresh copy of what was recorded last.
//   - Undo runs for every step that was done, and for the failed step too if its effect is in doubt, that is after any
//     error but a permanent one or a local rejection. It never runs before its Do has returned or lost its lease. It does
//     not depend on the context of whoever started the saga.
//   - A step whose InTx is set has exactly one effect in the store's own database. It takes a store that is a TxStore.
//   - An event that Send has acknowledged is kept until its Await, whichever comes first, and given to it once.
//   - After the pivot the saga only goes forward, without limit of attempts unless told.
//   - Compensation that cannot be finished is never dropped: the instance gets stuck, visibly, with its error.
//   - Instances of a definition or version that a node does not know are left alone and can be listed with Runner.Unknown.
//
// There is no isolation between sagas: others see the effects of an instance before it has ended. Mark what is pending
// where that matters. The durability of all this is that of the Store.
//
// # Doing it twice
//
// Since a step may run again after its effect was made, make its effect idempotent: hand IdempotencyKey to the systems the
// step calls. The key is the same over retries, nodes and restarts. An Undo finds by Attempt.DoKey what the Do may have left
// behind, and must take it in its stride if that is nothing.
//
// # How it works
//
// There is no replay: the position of an instance, its state as JSON, its attempts and its errors are in the store for
// everybody to read. The result of a step and the beginning of the next are one commit, fenced by a token that each change
// raises. A runner holds a lease on the instances it works on and renews it while an attempt runs; when it dies, any runner
// takes them over once the lease is out, and counts the attempt that was cut short as one in doubt. Between attempts an
// instance costs no goroutine and no lease: the time of the next one is in the store, and told by the store's clock. So it is
// while it waits for an event, a time or a child.
//
// # Use
//
// Define names the steps; a step is a Do and an Undo over a plain struct, or what Await, SleepUntil, Parallel or Child
// return. When leaves a step out, WithLimits sets a deadline and a limit of instances at work. NewRunner puts definitions on a store: memsaga for
// tests, sqlsaga on a database, pgsaga (in backend/postgres) on PostgreSQL with pgx. Start begins an instance under an ID of the
// caller's, Run works, Wait returns the result;
// Execute is both on the caller's goroutine. Send brings an event, Cancel turns an instance back.
//
// Policies apply inside a step, round the call it makes: a breaker's rejection does not count as an attempt. When a step is
// changed, added or renamed, define a new version, and keep the old one registered until its instances have ended.
//
// Where State consists of numbers, strings, slices and structs of these alone, without options in its JSON tags, a step is
// handed the very value that the one before has left; otherwise each decodes what is stored.
//
// Get informed when something is stuck, by OnStuck or the stuck_total metric, and repair it with Retry, Skip, MarkDone or
// Abort.
//
// # Source
//
// Garcia-Molina and Salem, "Sagas" (SIGMOD 1987), for compensation in reverse order; Richardson, "Microservices Patterns"
// (2018), chapter 4, for the pivot and for what to do about missing isolation; Gray and Cheriton, "Leases" (1989).
package saga
