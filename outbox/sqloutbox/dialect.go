package sqloutbox

import "database/sql"

// Dialect is the SQL text of one database. Use SQLite, MySQL or PostgreSQL; the zero value is refused by New.
type Dialect struct {
	name string
	// schema has one statement per element; in these and in the other texts {p} stands for the table prefix.
	schema []string
	// now is an expression for the database's clock in milliseconds.
	now string
	// numbered tells that parameters are written $1, $2 and so on instead of ?.
	numbered bool
	// inMask is the condition that a row of the outbox o belongs to a bucket whose bit is set in a parameter.
	inMask string
	// migrateLock, where it is not empty, makes migrations of several processes take turns until the transaction ends.
	migrateLock string
	// insertMany, where it is not empty, stores any number of rows from seven parameters, each an array as text.
	insertMany string
	// guard, where it is not empty, joins a row to the SELECT that locks the leases, and thereby has the database end the transaction
	// when its process falls silent. A process that is stopped, and not dead, would hold up every other relay.
	guard string
	// lock ends a SELECT of rows that must not change before the transaction ends. Their table is called l.
	lock string
	// share does the same where others may read the rows at the same time; where it is empty, lock serves. It also ends the SELECT of
	// an inbox row that is known to be there, where a plain one may not see it.
	share string
	// isolation is that of the store's own transactions, which do not read the caller's tables.
	isolation sql.IsolationLevel
	// again tells of an error whether the transaction can succeed when it is tried again; nil tries nothing again.
	again func(error) bool
	// deleteSeqs is a DELETE of rows of table {t} whose seq is in {list}, with {k} for the name of the index and with a WHERE at the
	// end. Where it is empty, a plain one serves.
	deleteSeqs string
	// maxClaim is how many bytes the consumer and the ID of an inbox row may have; zero means any number.
	maxClaim [2]int
	// claim inserts an inbox row (consumer, id, expiry) unless there is one.
	claim string
	// holdRow is the row (lane, seq, attempts, error, delay, parked) of an INSERT of holds, and holdReplace its end, which makes
	// it replace the hold that a lane has.
	holdRow, holdReplace string
}

// SQLite is the dialect of SQLite 3.42 and later.
func SQLite() Dialect {
	const now = "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
	return Dialect{
		name:    "sqlite",
		now:     now,
		inMask:  "(? >> (o.lane & 63)) & 1 = 1",
		claim:   "INSERT INTO {p}inbox (consumer, id, expires_at) VALUES (?, ?, " + now + " + ?) ON CONFLICT DO NOTHING",
		holdRow: "(?, ?, ?, ?, " + now + " + ?, CASE WHEN ? THEN " + now + " END)",
		holdReplace: " ON CONFLICT (lane) DO UPDATE SET seq = excluded.seq, attempts = excluded.attempts, " +
			"error = excluded.error, due_at = excluded.due_at, parked_at = excluded.parked_at",
		schema: []string{
			`CREATE TABLE IF NOT EXISTS {p}outbox (
	seq        INTEGER PRIMARY KEY AUTOINCREMENT,
	lane       INTEGER NOT NULL,
	id         TEXT    NOT NULL,
	topic      TEXT    NOT NULL,
	msg_key    TEXT    NOT NULL,
	header     TEXT    NOT NULL,
	payload    BLOB    NOT NULL,
	sent_at    INTEGER NOT NULL,
	stored_at  INTEGER NOT NULL DEFAULT (` + now + `)
)`,
			`CREATE TABLE IF NOT EXISTS {p}outbox_holds (
	lane       INTEGER PRIMARY KEY,
	seq        INTEGER NOT NULL,
	attempts   INTEGER NOT NULL,
	error      TEXT    NOT NULL,
	due_at     INTEGER NOT NULL,
	parked_at  INTEGER
)`,
			`CREATE TABLE IF NOT EXISTS {p}outbox_leases (
	bucket     INTEGER PRIMARY KEY,
	owner      TEXT    NOT NULL,
	epoch      INTEGER NOT NULL,
	expires_at INTEGER NOT NULL
)`,
			`CREATE TABLE IF NOT EXISTS {p}outbox_relays (
	owner      TEXT    PRIMARY KEY,
	expires_at INTEGER NOT NULL
)`,
			`INSERT INTO {p}outbox_leases (bucket, owner, epoch, expires_at)
WITH RECURSIVE n(bucket) AS (SELECT 0 UNION ALL SELECT bucket + 1 FROM n WHERE bucket < 63)
SELECT bucket, '', 0, 0 FROM n WHERE true ON CONFLICT DO NOTHING`,
			`CREATE TABLE IF NOT EXISTS {p}inbox (
	seq        INTEGER PRIMARY KEY,
	consumer   TEXT    NOT NULL,
	id         TEXT    NOT NULL,
	result     BLOB,
	expires_at INTEGER NOT NULL,
	UNIQUE (consumer, id)
)`,
			`CREATE INDEX IF NOT EXISTS {p}inbox_expiry ON {p}inbox (expires_at)`,
		},
	}
}
