// Package pgsaga keeps sagas in PostgreSQL through pgx: the tables of package sqlsaga, with one round trip for each change, with the
// changes of many instances in one commit, and with runners woken by NOTIFY.
//
// # Guarantees
//
// A [Store] gives everything that package saga promises, and works beside *sqlsaga.Store on the same tables: runners of both share the
// work and fence each other, and either may be put in the other's place. In addition:
//
//   - Commits: a change of an instance and its line of history are one statement, and so one commit, which tells the result of a step
//     and the intent of the next. What is to be created while another creation is under way shares the next commit, and so do
//     the changes that a runner has gathered. In a commit that is shared each change is fenced by itself: one that comes
//     too late, or an ID that is taken, does not hold up the others.
//   - Wake-up: a commit that leaves an instance due to nobody wakes the runners that [Store.Listen] serves, in any process. A
//     lost notification delays the instance until a runner's next poll, never for good.
//   - Steps in the store's transaction: a step whose InTx is set finds the transaction by [Tx], and what it writes there happens
//     exactly once.
//
// The time is the server's, as it receives a statement. What a call has acknowledged is as durable as a commit of the server, which
// synchronous_commit decides.
//
// # Usage
//
//	store, err := pgsaga.New(pool, pgsaga.Config{})
//	err = store.Migrate(ctx)
//	runner, err := saga.NewRunner(store, saga.Config{}, placeOrder)
//	go runner.Run(ctx)
//	go store.Listen(ctx, runner.Notify)
//
// The tables, and how people read them, are described in package sqlsaga. The pool must not be one of a transaction pooler for
// Listen, which needs a session of its own; everything else works behind one if pgx is told to do without prepared statements.
// A runner uses two connections at a time and one more for each step in the store's transaction; each call of Start may take another.
//
// Group commit is described by DeWitt et al., "Implementation Techniques for Main Memory Database Systems" (SIGMOD 1984).
package pgsaga
