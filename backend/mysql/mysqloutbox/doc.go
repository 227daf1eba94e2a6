// Package mysqloutbox opens a MySQL or MariaDB database the way the outbox, the inbox and the saga store of backstay need it, with the
// driver github.com/go-sql-driver/mysql: one call gives a [database/sql.DB] for sqloutbox.New and for the service's own tables,
// so that both change in one transaction.
//
// # Guarantees
//
//   - What a server or a data source name could break without an error is checked before Open returns: a SQL mode that shortens
//     values, READ UNCOMMITTED, a statement-based binary log, a connection that does not speak utf8mb4, a server that is too old.
//     Every fault is named at once, with what to do.
//   - Every connection speaks utf8mb4, has the time zone UTC, reads DATETIME columns as time.Time in UTC, takes one statement at a
//     time and asks the server for its packet size.
//   - Durability, isolation and the order of commits are the server's. With innodb_flush_log_at_trx_commit other than 1, or without
//     sync_binlog and a replica that waits, a loss of power or a failover undoes what Commit has confirmed, messages included.
//
// # Usage
//
//	db, err := mysqloutbox.Open(ctx, "mysql://orders@db.internal:3306/orders", mysqloutbox.Config{})
//	...
//	defer db.Close()
//	store, err := sqloutbox.New(db, sqloutbox.MySQL(), sqloutbox.Config{})
//	...
//	err = store.Migrate(ctx)
//
// Open takes the driver's own data source names too, with all of their parameters.
//
// # Limits
//
// There is no wake-up by the server: a relay is woken by outbox.WithRelay in its own process, and polls otherwise. A transaction that
// deadlocks is rolled back by the server and is the caller's to repeat; the relay's own transactions repeat themselves. Galera
// reports a conflict between nodes at the commit, which outbox.ErrInDoubt covers although nothing was stored.
//
// The settings follow the MySQL reference manual, chapters 5.1.11 (server SQL modes) and 15.7.2 (InnoDB transaction model).
package mysqloutbox
