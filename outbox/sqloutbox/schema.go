package sqloutbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/backstay-go/backstay/outbox"
)

// Schema is the SQL that Migrate runs, for teams that migrate by other means. Every statement may be run again.
func (s *Store) Schema() string {
	return s.sql(strings.Join(s.dialect.schema, ";\n\n")) + ";\n"
}

// Migrate creates what is missing. It may be run again, and by several processes at once; it never drops anything.
func (s *Store) Migrate(ctx context.Context) error {
	err := s.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if s.dialect.migrateLock != "" {
			if _, err := tx.ExecContext(ctx, s.sql(s.dialect.migrateLock)); err != nil {
				return err
			}
		}
		for _, statement := range s.dialect.schema {
			if _, err := tx.ExecContext(ctx, s.sql(statement)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sqloutbox: migrate: %w", err)
	}
	return nil
}

// Verify checks, without changing anything, that the tables have what the store needs, and names everything that is missing.
func (s *Store) Verify(ctx context.Context) error {
	var faults []error
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
		return fmt.Errorf("sqloutbox: table %soutbox_leases has %d rows instead of %d: run Migrate", s.prefix, buckets, outbox.Buckets)
	}
	return nil
}
