package sqlsaga

// PostgreSQL is the dialect of PostgreSQL 12 and later. Its clock is the server's, read as it receives each statement: a time that
// changed within a statement could not be looked up in an index.
func PostgreSQL() Dialect {
	return Dialect{
		name:     "postgres",
		now:      "CAST(FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000) AS BIGINT)",
		insert:   "INSERT INTO ",
		ignore:   " ON CONFLICT (id) DO NOTHING",
		lock:     " FOR UPDATE",
		skip:     " FOR UPDATE SKIP LOCKED",
		numbered: true,
		guard:    "SELECT pg_advisory_xact_lock(hashtext('{prefix}sagas'))",
		migrations: [][]string{{
			`CREATE TABLE IF NOT EXISTS {prefix}sagas (
	id         TEXT COLLATE "C" PRIMARY KEY,
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
	token      BIGINT NOT NULL,
	due_ms     BIGINT,
	created_ms BIGINT NOT NULL,
	updated_ms BIGINT NOT NULL,
	parent     TEXT NOT NULL DEFAULT '',
	awaits     TEXT NOT NULL DEFAULT '',
	timer_ns   BIGINT NOT NULL DEFAULT 0,
	marks      TEXT NOT NULL DEFAULT '',
	received   TEXT NOT NULL DEFAULT '',
	mail       INTEGER NOT NULL DEFAULT 0
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000)`,
			`CREATE INDEX IF NOT EXISTS {prefix}sagas_due ON {prefix}sagas (due_ms) WHERE due_ms IS NOT NULL`,
			`CREATE INDEX IF NOT EXISTS {prefix}sagas_status ON {prefix}sagas (status, updated_ms)`,
			`CREATE TABLE IF NOT EXISTS {prefix}saga_events (
	saga_id    TEXT COLLATE "C" NOT NULL,
	token      BIGINT NOT NULL,
	step       TEXT NOT NULL,
	direction  TEXT NOT NULL,
	attempt    INTEGER NOT NULL,
	outcome    TEXT NOT NULL,
	error      TEXT NOT NULL,
	owner      TEXT NOT NULL,
	started_ms BIGINT NOT NULL,
	ended_ms   BIGINT NOT NULL,
	PRIMARY KEY (saga_id, token)
)`,
		}, { // updated_ms changes with each step, and must not be in an index that has every instance
			`DROP INDEX IF EXISTS {prefix}sagas_status`,
			`CREATE INDEX IF NOT EXISTS {prefix}sagas_by_status ON {prefix}sagas (status)`,
			`CREATE INDEX IF NOT EXISTS {prefix}sagas_ended ON {prefix}sagas (updated_ms)
	WHERE status IN ('completed', 'compensated', 'aborted')`,
		}},
	}
}
