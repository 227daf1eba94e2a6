// Package sqlsaga keeps sagas in a SQL database, through database/sql and the standard library alone.
//
// # Guarantees
//
// A change of an instance and its line of history are one transaction, fenced by the instance's token: a node that has
// lost its lease changes nothing. A step whose InTx is set finds that transaction by Tx, and what it writes there happens
// exactly once. What a call has acknowledged is as durable as a commit of the database. The time is the
// database's: nodes with wrong clocks neither take instances early nor leave them late. StartTx creates an instance inside
// the caller's own transaction, so that an order and the saga that fulfils it exist together or not at all.
//
// Any number of processes may share the tables. Two that look at the same moment may see the same due instances; each
// instance goes to one of them.
//
// # Tables
//
// The names start with "backstay_" unless WithPrefix says otherwise, and are for people to read:
//
//   - backstay_sagas has a row for each instance: definition, version, status, direction, step, state as JSON, the error
//     that turned it back, the last error, who holds it, and due_ms, when it is next to be worked on, in milliseconds since
//     1970 (NULL when it has ended or is stuck).
//   - backstay_saga_schema has the version of the schema.
//   - backstay_saga_events has a row for each attempt and each repair, oldest first by token.
//
// Change them by hand only while no runner is in Run; use the repair calls of saga.Runner otherwise. Ended instances stay
// until Purge deletes them: set Config.Retention of the runner, or call it regularly.
//
// # Use
//
// Open the database with the driver of your choice, call New and Migrate, and give the store to saga.NewRunner:
//
//	store, err := sqlsaga.New(db, sqlsaga.SQLite()) // or PostgreSQL(), or MySQL()
//	err = store.Migrate(ctx)
//	runner, err := saga.NewRunner(store, saga.Config{}, placeOrder)
//
// Migrate brings the tables up to date from any version that was published; Verify only looks.
//
// With SQLite, transactions have to take the write lock when they begin, and the database must wait for a busy lock, as the
// databases that package backend/sqlite opens do.
//
// Fencing tokens and leases follow Gray and Cheriton, "Leases" (1989), and Kleppmann, "Designing Data-Intensive
// Applications" (2017), chapter 8.
package sqlsaga
