package sqlsaga

import (
	"strconv"
	"strings"
)

// Dialect is the SQL of one database. Use one of the functions that return it; the zero value is refused by New.
type Dialect struct {
	name   string
	now    string // the clock, in whole milliseconds since 1970
	insert string // starts an INSERT that does nothing, with no row affected, when the id is taken
	ignore string // ends it
	schema []string
}

// SQLite is the dialect of SQLite 3.42 and later. Its clock is that of the machine that holds the file.
func SQLite() Dialect {
	return Dialect{
		name:   "sqlite",
		now:    "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
		insert: "INSERT INTO ",
		ignore: " ON CONFLICT (id) DO NOTHING",
		schema: []string{
			`CREATE TABLE IF NOT EXISTS {prefix}sagas (
	id         TEXT PRIMARY KEY,
	definition TEXT NOT NULL,
	version    INTEGER NOT NULL,
	status     TEXT NOT NULL,
	direction  TEXT NOT NULL,
	step       TEXT NOT NULL,
	attempt    INTEGER NOT NULL,
	rejected   INTEGER NOT NULL,
	doubt      INTEGER NOT NULL,
	cause      TEXT NOT NULL,
	error      TEXT NOT NULL,
	state      TEXT NOT NULL,
	owner      TEXT NOT NULL,
	token      INTEGER NOT NULL,
	due_ms     INTEGER,
	created_ms INTEGER NOT NULL,
	updated_ms INTEGER NOT NULL
) WITHOUT ROWID`,
			`CREATE INDEX IF NOT EXISTS {prefix}sagas_due ON {prefix}sagas (due_ms) WHERE due_ms IS NOT NULL`,
			`CREATE INDEX IF NOT EXISTS {prefix}sagas_status ON {prefix}sagas (status, updated_ms)`,
			`CREATE TABLE IF NOT EXISTS {prefix}saga_events (
	saga_id    TEXT NOT NULL,
	token      INTEGER NOT NULL,
	step       TEXT NOT NULL,
	direction  TEXT NOT NULL,
	attempt    INTEGER NOT NULL,
	outcome    TEXT NOT NULL,
	error      TEXT NOT NULL,
	owner      TEXT NOT NULL,
	started_ms INTEGER NOT NULL,
	ended_ms   INTEGER NOT NULL,
	PRIMARY KEY (saga_id, token)
) WITHOUT ROWID`,
		},
	}
}

// text fills the table prefix and the clock into a statement.
func (d Dialect) text(prefix, query string) string {
	return strings.NewReplacer("{prefix}", prefix, "{now}", d.now, "{insert}", d.insert, "{ignore}", d.ignore).Replace(query)
}

// marks is n placeholders, separated by commas.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// page limits a query to n rows.
func page(n int) string { return " LIMIT " + strconv.Itoa(n) }
