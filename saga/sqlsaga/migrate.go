package sqlsaga

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// ErrSchema says that the tables are not those of this version of the package.
var ErrSchema = errors.New("sqlsaga: the schema is not up to date")

const versionTable = `CREATE TABLE IF NOT EXISTS {prefix}saga_schema (version INTEGER NOT NULL PRIMARY KEY)`

// Schema is every statement that Migrate runs on an empty database, for those who keep their schema elsewhere.
func (s *Store) Schema() (all []string) {
	for v, migration := range s.dialect.migrations {
		for _, stmt := range migration {
			all = append(all, s.dialect.text(s.prefix, stmt))
		}
		if v == 0 {
			all = append(all, s.dialect.text(s.prefix, versionTable))
		}
		all = append(all, s.dialect.text(s.prefix, fmt.Sprintf("INSERT INTO {prefix}saga_schema (version) VALUES (%d)", v+1)))
	}
	return all
}

// Migrate brings the tables to the present version, and is safe to call at every start, by several processes at once. It
// returns ErrSchema, and changes nothing, when a later version of the package has been here.
func (s *Store) Migrate(ctx context.Context) error {
	return wrap("migrate", s.guarded(ctx, func(db execer) error {
		if _, err := db.ExecContext(ctx, s.dialect.text(s.prefix, versionTable)); err != nil {
			return err
		}
		have, err := s.version(ctx, db)
		if err != nil {
			return err
		}
		if have > len(s.dialect.migrations) {
			return fmt.Errorf("%w: it is version %d, and this package knows %d", ErrSchema, have, len(s.dialect.migrations))
		}
		for v := have; v < len(s.dialect.migrations); v++ {
			if err := s.migrateTo(ctx, db, v+1); err != nil {
				return fmt.Errorf("to version %d: %w", v+1, err)
			}
		}
		return nil
	}))
}

func (s *Store) migrateTo(ctx context.Context, db execer, version int) error {
	for _, stmt := range s.dialect.migrations[version-1] {
		if _, err := db.ExecContext(ctx, s.dialect.text(s.prefix, stmt)); err != nil {
			return err
		}
	}
	_, err := db.ExecContext(ctx, s.dialect.text(s.prefix, "INSERT INTO {prefix}saga_schema (version) VALUES (?)"), version)
	return err
}

// Verify returns ErrSchema, naming the versions, unless Migrate or somebody in its stead has brought the tables up to date.
func (s *Store) Verify(ctx context.Context) error {
	have, err := s.version(ctx, s.db)
	switch {
	case err != nil:
		return fmt.Errorf("%w: no version can be read: %w", ErrSchema, err)
	case have != len(s.dialect.migrations):
		return fmt.Errorf("%w: it is version %d, and this package needs %d", ErrSchema, have, len(s.dialect.migrations))
	}
	return nil
}

func (s *Store) version(ctx context.Context, db execer) (version int, err error) {
	all, err := collect(ctx, db, s.dialect.text(s.prefix, "SELECT version FROM {prefix}saga_schema ORDER BY version"),
		func(rows *sql.Rows) (v int, err error) { return v, rows.Scan(&v) })
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return all[len(all)-1], nil
}

// guarded runs fn while no other process migrates: in a transaction, or on a connection that holds a lock where the
// database commits every change of the schema by itself.
func (s *Store) guarded(ctx context.Context, fn func(db execer) error) error {
	guard := s.dialect.text(s.prefix, s.dialect.guard)
	if s.dialect.release == "" {
		return s.begin(ctx, func(ctx context.Context, tx *sql.Tx) error {
			if guard != "" {
				if _, err := tx.ExecContext(ctx, guard); err != nil {
					return err
				}
			}
			return fn(tx)
		})
	}
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, guard).Scan(&got); err != nil || got.Int64 != 1 {
		return errors.Join(err, conn.Close(), errors.New("another process is migrating, or the lock cannot be had"))
	}
	err = fn(conn)
	_, unlock := conn.ExecContext(context.WithoutCancel(ctx), s.dialect.text(s.prefix, s.dialect.release))
	return errors.Join(err, unlock, conn.Close())
}
