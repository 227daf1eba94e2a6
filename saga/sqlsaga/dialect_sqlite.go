package sqlsaga

// SQLite is the dialect of SQLite 3.42 and later. Its clock is that of the machine that holds the file.
func SQLite() Dialect {
	return Dialect{
		name:   "sqlite",
		now:    "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
		insert: "INSERT INTO ",
		ignore: " ON CONFLICT (id) DO NOTHING",

		inProcess: true,
		parses:    true,
		lean:      true,
		migrations: [][]string{{
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
		}, {
			`ALTER TABLE {prefix}sagas ADD COLUMN parent TEXT NOT NULL DEFAULT ''`,
			`ALTER TABLE {prefix}sagas ADD COLUMN awaits TEXT NOT NULL DEFAULT ''`,
			`ALTER TABLE {prefix}sagas ADD COLUMN timer_ns INTEGER NOT NULL DEFAULT 0`,
			`ALTER TABLE {prefix}sagas ADD COLUMN marks TEXT NOT NULL DEFAULT ''`,
			`ALTER TABLE {prefix}sagas ADD COLUMN received TEXT NOT NULL DEFAULT ''`,
			`ALTER TABLE {prefix}sagas ADD COLUMN mail INTEGER NOT NULL DEFAULT 0`,
		}, { // updated_ms changes with each step, and must not be in an index that has every instance
			`DROP INDEX IF EXISTS {prefix}sagas_status`,
			`CREATE INDEX IF NOT EXISTS {prefix}sagas_by_status ON {prefix}sagas (status)`,
			`CREATE INDEX IF NOT EXISTS {prefix}sagas_ended ON {prefix}sagas (updated_ms)
	WHERE status IN ('completed', 'compensated', 'aborted')`,
		}},
	}
}
