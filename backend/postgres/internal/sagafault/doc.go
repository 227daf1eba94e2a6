// Package sagafault holds the tests of sqlsaga and pgsaga on PostgreSQL: the contract, and what happens when processes and servers fail. It has no
// code of its own.
package sagafault
