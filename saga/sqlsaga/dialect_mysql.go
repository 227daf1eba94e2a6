package sqlsaga

// MySQL is the dialect of MySQL 8 and of MariaDB 10.6 and later, with InnoDB. Its clock is the server's, in UTC whatever the
// time zone of the session. The driver must report the rows that a statement changed, which is its default, and the session
// must keep the server's strict mode.
func MySQL() Dialect {
	return Dialect{
		name:    "mysql",
		now:     "CAST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000 AS SIGNED)",
		insert:  "INSERT IGNORE INTO ",
		lock:    " FOR UPDATE",
		skip:    " FOR UPDATE SKIP LOCKED",
		parses:  true,
		guard:   "SELECT GET_LOCK('{prefix}sagas', 60)",
		release: "SELECT RELEASE_LOCK('{prefix}sagas')",
		migrations: [][]string{{
			`CREATE TABLE IF NOT EXISTS {prefix}sagas (
	id         VARCHAR(255) NOT NULL PRIMARY KEY,
	definition VARCHAR(255) NOT NULL,
	version    INT NOT NULL,
	status     VARCHAR(16) NOT NULL,
	direction  VARCHAR(8) NOT NULL,
	step       TEXT NOT NULL,
	attempt    INT NOT NULL,
	rejected   INT NOT NULL,
	doubt      INT NOT NULL,
	cause      TEXT NOT NULL,
	error      TEXT NOT NULL,
	state      LONGTEXT NOT NULL,
	owner      VARCHAR(255) NOT NULL,
	token      BIGINT NOT NULL,
	due_ms     BIGINT,
	created_ms BIGINT NOT NULL,
	updated_ms BIGINT NOT NULL,
	parent     VARCHAR(255) NOT NULL,
	awaits     TEXT NOT NULL,
	timer_ns   BIGINT NOT NULL,
	marks      LONGTEXT NOT NULL,
	received   LONGTEXT NOT NULL,
	mail       INT NOT NULL,
	INDEX {prefix}sagas_due (due_ms),
	INDEX {prefix}sagas_status (status, updated_ms)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`,
			`CREATE TABLE IF NOT EXISTS {prefix}saga_events (
	saga_id    VARCHAR(255) NOT NULL,
	token      BIGINT NOT NULL,
	step       TEXT NOT NULL,
	direction  VARCHAR(8) NOT NULL,
	attempt    INT NOT NULL,
	outcome    VARCHAR(16) NOT NULL,
	error      TEXT NOT NULL,
	owner      VARCHAR(255) NOT NULL,
	started_ms BIGINT NOT NULL,
	ended_ms   BIGINT NOT NULL,
	PRIMARY KEY (saga_id, token)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`,
		}},
	}
}
