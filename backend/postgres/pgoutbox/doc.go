// Package pgoutbox keeps the outbox and the inbox in PostgreSQL through pgx: the tables of package sqloutbox, with one round trip to
// publish, one to fetch and one to settle, which go on beside each other while there is a backlog, and with relays woken by NOTIFY.
//
// # Guarantees
//
// A [Store] gives everything that package outbox promises, and works beside *sqloutbox.Store on the same tables: relays of both share
// the work and fence each other. In addition:
//
//   - Order: with [Config].KeyLock, order per key holds for any transactions, not only for those that lock their aggregate first.
//   - Wake-up: a commit wakes the relays that [Store.Listen] serves, in any process. A lost notification delays a message until the
//     relay's next poll, never for good.
//   - Long transactions: one that is open, in this or another database, delays no message but its own. The low-water mark below
//     which a fetch need not look rises only when no transaction can bring a row below it any more.
//   - Commits: an error of [Store.InTx] matches outbox.ErrInDoubt unless the server itself has answered that it rolled back. What the
//     driver calls safe to retry is not believed: pgx says so of a commit whose answer was cut off.
//
// # Usage
//
//	store, err := pgoutbox.New(pool, pgoutbox.Config{})   // fixes Tx as pgx.Tx
//	err = store.Migrate(ctx)
//	relay := outbox.NewRelay(store, bus, outbox.RelayConfig{})
//	go relay.Run(ctx)
//	go store.Listen(ctx, relay.Notify)
//
// The tables, and their settings for autovacuum, are those of sqloutbox.PostgreSQL. The pool must not be one of a transaction pooler
// for Listen, which needs a session of its own; everything else works behind one if pgx is told to do without prepared statements.
//
// # Inbox by day
//
// With [Config].InboxByDay the inbox has a partition for each day, which [Store.Clean] makes ahead of time and drops whole. Stores of every kind
// make their claims there as before.
//
// # Bloat
//
// Published rows are deleted, and are dead until vacuum removes them. A transaction that holds an old snapshot, such as a backup,
// keeps it from doing that. Fetch passes over the dead rows at the front of the table by its low-water mark; a parked message holds
// the mark back, and so does a transaction that has stored messages and stays open. Every [Config].Rescan one fetch looks at all.
package pgoutbox
