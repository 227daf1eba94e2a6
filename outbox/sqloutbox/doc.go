// Package sqloutbox keeps the outbox and the inbox in the tables of a database/sql database, beside the service's own.
//
// # Guarantees
//
// A [Store] gives everything that package outbox promises, with the durability and isolation of the database behind it. Its
// statements are written for read-committed isolation and stronger. Leases and delays run on the database's clock alone, so the
// clocks of the service's hosts may differ by hours. The fencing check and the change it protects are one transaction.
//
// A transaction that has been open for longer than [Config].Rescan may have its messages published by up to as much later: the low-water
// mark, past which fetches look for the sake of deleted rows that the database still keeps, is checked that often.
//
// # Tables
//
// With the default prefix:
//
//   - backstay_outbox: the messages not yet published, in the order of seq. Published ones are deleted, so the table is small and
//     has no index but its primary key.
//   - backstay_outbox_holds: the lanes (hashes of keys) that wait, one row each, with the message at their head, its attempts, its
//     last error, and the time it is due or was parked. Empty while all goes well.
//   - backstay_outbox_leases and backstay_outbox_relays: who relays which of the 64 buckets.
//   - backstay_outbox_schema: which migrations of these tables have been made.
//   - backstay_inbox: what consumers have handled, with its expiry.
//
// All times are milliseconds since 1970 in UTC except sent_at, which is nanoseconds and comes from the publisher.
//
// # Usage
//
//	store, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{})
//	...
//	err = store.Migrate(ctx)   // or run Schema by your own means, then Verify
//
// The store imports no driver: open db with package backend/sqlite, backend/mysql/mysqloutbox, or any driver of the database that the
// dialect names. On SQLite transactions must begin as immediate ones, as package backend/sqlite makes them; what MySQL needs, package
// mysqloutbox sets and checks. A transaction that MySQL ends in favour of another is repeated by [Store.RetryTx].
//
// The tables follow the Transactional Outbox and Idempotent Receiver patterns; see package outbox.
package sqloutbox
