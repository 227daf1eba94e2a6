// Package postgres is the home of what runs on PostgreSQL; it has no code of its own. Package pgoutbox keeps outbox and inbox
// there through pgx, and sqloutbox does through database/sql with any driver, such as pgx/v5/stdlib; so do pgsaga and sqlsaga with sagas.
//
// The tests here hurt the outboxes: relays that die or are stopped, servers that crash, fill up or refuse to write, transactions that commit late or
// never, connections that are cut or fall silent. The cases F01 to F17 are those in which outboxes are known to lose, repeat,
// reorder or stall.
package postgres
