package sqloutbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/backstay-go/backstay/outbox"
)

// migration is one step of the schema. Its statements may be run again, since not every database rolls them back.
type migration struct {
	version    int
	name       string
	statements []string
}

// migrations are all steps, in order. What has been released is never changed; a change of the tables is a further step.
func (d Dialect) migrations() []migration {
	return []migration{{1, "outbox and inbox", d.schema}}
}

// versions is the table of the steps taken, and taken the statement that enters one.
const versions = "CREATE TABLE IF NOT EXISTS {p}outbox_schema (version INTEGER PRIMARY KEY, name VARCHAR(100) NOT NULL)"

func (m migration) taken() string {
	return fmt.Sprintf("INSERT INTO {p}outbox_schema (version, name) SELECT %d, '%s' FROM (SELECT 1 AS one) AS step "+
		"WHERE NOT EXISTS (SELECT 1 FROM {p}outbox_schema WHERE version = %[1]d)", m.version, m.name)
}

// Schema is the SQL that Migrate runs, for teams that migrate by other means. Every statement may be run again.
func (s *Store) Schema() string {
	var text strings.Builder
	text.WriteString(s.sql(versions) + ";\n\n")
	for _, m := range s.dialect.migrations() {
		fmt.Fprintf(&text, "-- migration %d: %s\n", m.version, m.name)
		for _, statement := range append(slices.Clone(m.statements), m.taken()) {
			text.WriteString(s.sql(statement) + ";\n\n")
		}
	}
	return strings.TrimSuffix(text.String(), "\n")
}

// Migrate takes the steps that are missing, each entered in the table outbox_schema. It may be run again, and by several processes at
// once, which take turns; it never drops anything.
func (s *Store) Migrate(ctx context.Context) error {
	// Where the schema changes outside the transaction, as in MySQL, those at the same step may lock each other out of the rows that it adds.
	err := s.RetryTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if s.dialect.migrateLock != "" {
			if _, err := tx.ExecContext(ctx, s.sql(s.dialect.migrateLock)); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, s.sql(versions)); err != nil {
			return err
		}
		done, err := integers(tx.QueryContext(ctx, s.sql("SELECT version FROM {p}outbox_schema")))
		if err != nil {
			return err
		}
		for _, m := range s.dialect.migrations() {
			if slices.Contains(done, int64(m.version)) {
				continue
			}
			for _, statement := range append(slices.Clone(m.statements), m.taken()) {
				if _, err := tx.ExecContext(ctx, s.sql(statement)); err != nil {
					return fmt.Errorf("migration %d (%s): %w", m.version, m.name, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sqloutbox: migrate: %w", err)
	}
	return nil
}

// missing names the steps that have not been taken.
func (s *Store) missing(ctx context.Context) error {
	done, err := integers(s.db.QueryContext(ctx, s.sql("SELECT version FROM {p}outbox_schema")))
	if err != nil {
		return fmt.Errorf("sqloutbox: table %soutbox_schema: %w: run Migrate or the statements of Schema", s.prefix, err)
	}
	var faults []error
	for _, m := range s.dialect.migrations() {
		if !slices.Contains(done, int64(m.version)) {
			faults = append(faults, fmt.Errorf("sqloutbox: migration %d (%s) is missing from table %soutbox_schema: run Migrate or the statements of Schema",
				m.version, m.name, s.prefix))
		}
	}
	return errors.Join(faults...)
}

// Verify checks, without changing anything, that every migration has been made and that the tables have what the store needs, and names
// everything that is missing.
func (s *Store) Verify(ctx context.Context) error {
	faults := []error{s.missing(ctx)}
	for _, t := range []struct{ table, columns string }{
		{"outbox", "seq, lane, id, topic, msg_key, header, payload, sent_at, stored_at"},
		{"outbox_holds", "lane, seq, attempts, error, due_at, parked_at"},
		{"outbox_leases", "bucket, owner, epoch, expires_at"},
		{"outbox_relays", "owner, expires_at"},
		{"inbox", "seq, consumer, id, result, expires_at"},
	} {
		rows, err := s.db.QueryContext(ctx, "SELECT "+t.columns+" FROM "+s.prefix+t.table+" WHERE 1 = 0")
		if err != nil {
			faults = append(faults, fmt.Errorf("sqloutbox: table %s%s: %w: run Migrate or the statements of Schema", s.prefix, t.table, err))
			continue
		}
		faults = append(faults, rows.Close())
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	var buckets int
	if err := s.db.QueryRowContext(ctx, s.sql("SELECT COUNT(*) FROM {p}outbox_leases")).Scan(&buckets); err != nil {
		return fmt.Errorf("sqloutbox: verify: %w", err)
	}
	if buckets != outbox.Buckets {
		return fmt.Errorf("sqloutbox: table %soutbox_leases has %d rows instead of %d: run the statements of Schema", s.prefix, buckets, outbox.Buckets)
	}
	return nil
}
