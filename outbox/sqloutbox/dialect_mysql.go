package sqloutbox

import (
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/backstay-go/backstay/outbox"
)

// MySQL is the dialect of MySQL 8.0.13 and later and of MariaDB 10.6 and later, with InnoDB tables. The connections must be in a
// strict SQL mode, or the server shortens what is too long without a word, and not in READ UNCOMMITTED, or relays publish what
// is rolled back later; package backend/mysql/mysqloutbox opens a database that way and checks it. Every isolation from READ
// COMMITTED up will do, and the session's time zone does not matter. The store's own transactions are READ COMMITTED, which a
// server with a statement-based binary log refuses; where one deadlocks, or waits too long for a lock, it is tried again. In the
// inbox a consumer's name may have 255 bytes and an ID 1024; Claim refuses longer ones.
func MySQL() Dialect {
	// UTC_TIMESTAMP, unlike UNIX_TIMESTAMP(NOW()), is the same in every time zone, and unambiguous when clocks are put back.
	const now = "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000)"
	return Dialect{
		name:   "mysql",
		now:    now,
		inMask: "(? >> (o.lane & 63)) & 1 = 1",
		lock:   " FOR UPDATE",
		// Settle only needs the leases to stay as they are, so that those of several relays go on side by side. Of an inbox row that
		// another transaction has made, the snapshot of REPEATABLE READ knows nothing, but a locking read sees it. To that end FOR
		// UPDATE would be as good, if two duplicates, each with the shared lock of its INSERT, did not wait for each other then.
		share:     " LOCK IN SHARE MODE",
		isolation: sql.LevelReadCommitted, // no locks on the gaps between rows, where others insert
		again:     isConflict,
		// Of a small table the server would rather read all rows than look for those in a list, index hint or not, and then wait for
		// each row that a transaction in progress has inserted. Joined to a table of numbers, it looks them up.
		deleteSeqs: "DELETE x FROM JSON_TABLE('[{list}]', '$[*]' COLUMNS (n BIGINT PATH '$')) k " +
			"STRAIGHT_JOIN {t} x FORCE INDEX ({k}) ON x.seq = k.n WHERE TRUE",
		claim:    "INSERT IGNORE INTO {p}inbox (consumer, id, expires_at) VALUES (?, ?, " + now + " + ?)",
		maxClaim: [2]int{255, 1024},
		holdRow:  "(?, ?, ?, ?, " + now + " + ?, CASE WHEN ? THEN " + now + " END)",
		holdReplace: " ON DUPLICATE KEY UPDATE seq = VALUES(seq), attempts = VALUES(attempts), error = VALUES(error), " +
			"due_at = VALUES(due_at), parked_at = VALUES(parked_at)",
		schema: mysqlSchema(now),
	}
}

func mysqlSchema(now string) []string {
	const table = "ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
	return []string{
		`CREATE TABLE IF NOT EXISTS {p}outbox (
	seq        BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
	lane       BIGINT       NOT NULL,
	id         TEXT         NOT NULL,
	topic      VARCHAR(255) NOT NULL,
	msg_key    TEXT         NOT NULL,
	header     LONGTEXT     NOT NULL,
	payload    LONGBLOB     NOT NULL,
	sent_at    BIGINT       NOT NULL,
	stored_at  BIGINT       NOT NULL DEFAULT ` + now + `
) ` + table,
		`CREATE TABLE IF NOT EXISTS {p}outbox_holds (
	lane       BIGINT   NOT NULL PRIMARY KEY,
	seq        BIGINT   NOT NULL,
	attempts   INT      NOT NULL,
	error      LONGTEXT NOT NULL,
	due_at     BIGINT   NOT NULL,
	parked_at  BIGINT,
	KEY by_seq (seq)
) ` + table,
		`CREATE TABLE IF NOT EXISTS {p}outbox_leases (
	bucket     INT           NOT NULL PRIMARY KEY,
	owner      VARBINARY(64) NOT NULL,
	epoch      BIGINT        NOT NULL,
	expires_at BIGINT        NOT NULL
) ` + table,
		`CREATE TABLE IF NOT EXISTS {p}outbox_relays (
	owner      VARBINARY(64) NOT NULL PRIMARY KEY,
	expires_at BIGINT        NOT NULL
) ` + table,
		`INSERT IGNORE INTO {p}outbox_leases (bucket, owner, epoch, expires_at)
VALUES (0, '', 0, 0)` + buckets(),
		// Binary columns: to a text column 'a' equals 'a ', whatever its collation, on some of the servers.
		`CREATE TABLE IF NOT EXISTS {p}inbox (
	seq        BIGINT          NOT NULL AUTO_INCREMENT,
	consumer   VARBINARY(255)  NOT NULL,
	id         VARBINARY(1024) NOT NULL,
	result     LONGBLOB,
	expires_at BIGINT          NOT NULL,
	PRIMARY KEY (consumer, id),
	UNIQUE KEY by_seq (seq),
	KEY by_expiry (expires_at)
) ` + table,
	}
}

// buckets are the rows of the leases after the first.
func buckets() string {
	var rows strings.Builder
	for bucket := 1; bucket < outbox.Buckets; bucket++ {
		fmt.Fprintf(&rows, ", (%d, '', 0, 0)", bucket)
	}
	return rows.String()
}

// isConflict recognises what the server did not do because of another transaction: 1213 is a deadlock, 1205 a wait for a lock that
// took too long. The drivers keep that number in a field of their error, of whose type this package knows nothing else.
func isConflict(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		v := reflect.Indirect(reflect.ValueOf(err))
		if v.Kind() != reflect.Struct {
			continue
		}
		if number := v.FieldByName("Number"); number.CanUint() {
			return number.Uint() == 1213 || number.Uint() == 1205
		}
	}
	return false
}
