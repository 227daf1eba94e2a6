package mysqloutbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// session is what a connection and its server have been set to.
type session struct {
	version, mode, charset, binlog, isolation string
	logs, autocommit                          bool
}

// check reads the settings of a new connection and names every one that breaks a guarantee.
func check(ctx context.Context, db *sql.DB) error {
	var s session
	err := db.QueryRowContext(ctx, "SELECT VERSION(), @@sql_mode, @@character_set_connection, @@binlog_format, @@log_bin, @@autocommit").
		Scan(&s.version, &s.mode, &s.charset, &s.binlog, &s.logs, &s.autocommit)
	if err != nil {
		return err
	}
	// MariaDB had no other name for it before 11.1, and MySQL has given that one up.
	variable := "@@transaction_isolation"
	if strings.Contains(s.version, "MariaDB") {
		variable = "@@tx_isolation"
	}
	if err := db.QueryRowContext(ctx, "SELECT "+variable).Scan(&s.isolation); err != nil {
		return err
	}
	return s.faults()
}

func (s session) faults() error {
	var faults []error
	refuse := func(fault bool, format string, args ...any) {
		if fault {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	refuse(s.tooOld(), "the server has version %s: MySQL 8.0.13 or MariaDB 10.6 is the least", s.version)
	refuse(!strings.Contains(s.mode, "STRICT_TRANS_TABLES") && !strings.Contains(s.mode, "STRICT_ALL_TABLES"),
		"sql_mode %q is not strict, so that values which are too long are shortened: add STRICT_TRANS_TABLES to the server's sql_mode", s.mode)
	refuse(s.isolation == "READ-UNCOMMITTED",
		"the isolation is READ-UNCOMMITTED, so that messages are published which are rolled back later: set READ-COMMITTED or REPEATABLE-READ")
	refuse(s.logs && s.binlog == "STATEMENT",
		"binlog_format is STATEMENT, which InnoDB refuses for READ COMMITTED, the isolation of the relay: set it to ROW or MIXED")
	refuse(s.charset != "utf8mb4", "the connection speaks %s, which cannot carry every text: leave charset and collation out of the data source name", s.charset)
	refuse(!s.autocommit, "autocommit is off, so that a relay would look at one snapshot for ever: leave it on")
	return errors.Join(faults...)
}

// tooOld compares the numbers at the beginning of the version. One that cannot be read is not old.
func (s session) tooOld() bool {
	least := []int{8, 0, 13}
	text := s.version
	if strings.Contains(text, "MariaDB") {
		least = []int{10, 6, 0}
		text = strings.TrimPrefix(text, "5.5.5-") // what servers say to clients of old
	}
	for i, part := range strings.SplitN(text, ".", 3) {
		digits := strings.IndexFunc(part+" ", func(c rune) bool { return c < '0' || c > '9' })
		n, err := strconv.Atoi(part[:digits])
		if err != nil || n != least[i] {
			return err == nil && n < least[i]
		}
	}
	return false
}
