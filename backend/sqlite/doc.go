// Package sqlite opens a SQLite file the way a service needs it, without cgo: one call gives a [database/sql.DB] on which the
// stores of backstay (sqloutbox, sqlsaga) and the service's own tables live together, so that both change in one transaction.
//
// # Guarantees
//
//   - Durability: with the default Synchronous a transaction whose Commit returned nil survives the loss of the process, of
//     the operating system and of power, as far as the disk keeps its promise to flush. With "normal" it survives the loss of
//     the process; the last transactions may be missing, whole, after a loss of power. The file is never left corrupt by either.
//   - Isolation: transactions are serializable. A reader sees one snapshot and never blocks a writer.
//   - Concurrency: writers of one or many processes take turns. A transaction takes the write lock when it begins, so that it
//     waits at BeginTx and cannot fail later with SQLITE_BUSY because somebody else wrote in between.
//   - Integrity: foreign keys are enforced on every connection.
//
// # Usage
//
//	db, err := sqlite.Open("orders.db", sqlite.Config{})
//	...
//	defer db.Close()
//
// Begin a transaction that only reads with [database/sql.TxOptions] ReadOnly: it takes no write lock and never waits. Such a
// transaction must not write. A statement outside a transaction is a transaction of its own.
//
// A wait for the write lock ends within 50 milliseconds of the end of BeginTx's context, or after 30 seconds with SQLITE_BUSY; that
// of a statement outside a transaction ends with the lock or after 30 seconds, whatever its context. The wait is a poll, so that
// under heavy contention writers are served in no particular order; keep transactions short and never wait for the network
// inside one.
//
// # When not to use it
//
// SQLite locks a file of one machine: several processes on one host may share it, hosts may not, and a network file system
// breaks the locks. One writer at a time is also the limit of its throughput; grouping many changes into a transaction is the
// way to more. Beyond that, the same stores run on PostgreSQL and MySQL.
//
// The settings follow the SQLite documentation of write-ahead logging (sqlite.org/wal.html) and of transactions
// (sqlite.org/lang_transaction.html). The engine is the C source of SQLite translated to Go (modernc.org/sqlite).
package sqlite
