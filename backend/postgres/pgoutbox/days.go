package pgoutbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// daysStep is the number of the step that divides the inbox, in the table of the steps taken. Those of sqloutbox have lower ones.
const daysStep = 1001

// divide is the step that divides the inbox into days, by the database's clock, in UTC. It may be run again, and by several at once.
//
// No unique index reaches over several partitions. So a trigger lets those who claim the same take turns, and leaves out a row that any day has:
// to a claim that looks as it does where the inbox is one table, and stores of both forms, and of sqloutbox, make the same claims. It sees what
// others have committed meanwhile, which transactions with a snapshot of their own do not.
//
// What the inbox held before becomes the partition of all time before 1970-01-01 00:00:00.001, under its own name, until it has expired.
const divide = `DO $step$
BEGIN
	PERFORM pg_advisory_xact_lock(hashtextextended('backstay migrate {p}outbox', 0));
	IF EXISTS (SELECT 1 FROM {p}outbox_schema WHERE version = {step}) THEN
		RETURN;
	END IF;
	ALTER TABLE {p}inbox RENAME TO {p}inbox_before;
	ALTER INDEX {p}inbox_expiry RENAME TO {p}inbox_before_expiry;
	ALTER TABLE {p}inbox_before ALTER COLUMN seq DROP IDENTITY, ADD COLUMN stored_at BIGINT NOT NULL DEFAULT 0;
	CREATE SEQUENCE {p}inbox_seq;
	PERFORM setval('{p}inbox_seq', (SELECT COALESCE(max(seq), 0) + 1 FROM {p}inbox_before), false);
	CREATE TABLE {p}inbox (
		seq        BIGINT  NOT NULL DEFAULT nextval('{p}inbox_seq'),
		consumer   TEXT    NOT NULL,
		id         TEXT    NOT NULL,
		result     BYTEA,
		expires_at BIGINT  NOT NULL,
		stored_at  BIGINT  NOT NULL DEFAULT ({now})
	) PARTITION BY RANGE (stored_at);
	ALTER SEQUENCE {p}inbox_seq OWNED BY {p}inbox.seq;
	CREATE INDEX {p}inbox_expiry ON {p}inbox USING brin (expires_at) WITH (autosummarize = on);
	CREATE FUNCTION {p}inbox_claim() RETURNS trigger LANGUAGE plpgsql AS $claim$
	BEGIN
		IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
			RAISE EXCEPTION 'an inbox by day needs READ COMMITTED transactions' USING ERRCODE = 'feature_not_supported';
		END IF;
		PERFORM pg_advisory_xact_lock(hashtextextended(NEW.consumer, hashtextextended('backstay {p}inbox ' || NEW.id, 0)));
		IF EXISTS (SELECT 1 FROM {p}inbox WHERE consumer = NEW.consumer AND id = NEW.id) THEN
			RETURN NULL;
		END IF;
		RETURN NEW;
	END $claim$;
	CREATE TRIGGER {p}inbox_claim BEFORE INSERT ON {p}inbox FOR EACH ROW EXECUTE FUNCTION {p}inbox_claim();
	CREATE FUNCTION {p}inbox_day(n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
		$day$ SELECT '{p}inbox_' || to_char(to_timestamp(n * 86400) AT TIME ZONE 'UTC', 'YYYYMMDD') $day$;
	CREATE FUNCTION {p}inbox_make_days() RETURNS void LANGUAGE plpgsql AS $make$
	DECLARE
		today bigint := {now} / 86400000;
	BEGIN
		PERFORM pg_advisory_xact_lock(hashtextextended('backstay days of {p}inbox', 0));
		FOR n IN today .. today + 7 LOOP
			CONTINUE WHEN to_regclass({p}inbox_day(n)) IS NOT NULL;
			-- Made first and attached then, so that it locks out nobody.
			EXECUTE format('CREATE TABLE %s (LIKE {p}inbox INCLUDING ALL, PRIMARY KEY (consumer, id))', {p}inbox_day(n));
			EXECUTE format('ALTER TABLE {p}inbox ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)',
				{p}inbox_day(n), n::bigint * 86400000, (n::bigint + 1) * 86400000);
		END LOOP;
	END $make$;
	ALTER TABLE {p}inbox ATTACH PARTITION {p}inbox_before FOR VALUES FROM (MINVALUE) TO (1);
	INSERT INTO {p}outbox_schema (version, name) VALUES ({step}, 'inbox by day');
END $step$`

// dayTexts are the statements of an inbox by day, with the prefix filled in.
type dayTexts struct{ divide, make, divided, ready, over, lock string }

func dayTextsOf(prefix string) dayTexts {
	fill := func(text string) string {
		return strings.NewReplacer("{p}", prefix, "{now}", now, "{step}", fmt.Sprint(daysStep)).Replace(text)
	}
	return dayTexts{
		divide:  fill(divide),
		make:    fill("SELECT {p}inbox_make_days()"),
		divided: fill("SELECT relkind = 'p' FROM pg_class WHERE oid = '{p}inbox'::regclass"),
		ready:   fill("SELECT to_regclass({p}inbox_day({now} / 86400000 + 1)) IS NOT NULL"),
		// Names are compared byte by byte. How many rows there are the server estimates.
		over: fill("SELECT c.oid::regclass::text, greatest(c.reltuples, 0)::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid" +
			" WHERE i.inhparent = '{p}inbox'::regclass AND (c.relname = lower('{p}inbox_before')" +
			" OR c.relname < lower({p}inbox_day({now} / 86400000))) ORDER BY c.relname"),
		lock: fill("LOCK TABLE ONLY {p}inbox IN ACCESS EXCLUSIVE MODE"),
	}
}

// migrateDays divides the inbox, unless it is divided, and makes the days ahead.
func (s *Store) migrateDays(ctx context.Context) error {
	for _, text := range []string{s.days.divide, s.days.make} {
		if _, err := s.pool.Exec(ctx, text); err != nil {
			return fmt.Errorf("pgoutbox: migrate: inbox by day: %w", err)
		}
	}
	return nil
}

// verifyDays checks that the inbox is divided, and that tomorrow has been made.
func (s *Store) verifyDays(ctx context.Context) error {
	divided, err := s.ask(ctx, s.days.divided)
	if err != nil || !divided {
		return errors.Join(fmt.Errorf("pgoutbox: table %sinbox is not divided into days: run Migrate or the statements of Schema", s.config.Prefix), err)
	}
	ready, err := s.ask(ctx, s.days.ready)
	if err != nil || !ready {
		return errors.Join(fmt.Errorf("pgoutbox: table %sinbox has no partition for tomorrow: run Clean or Migrate", s.config.Prefix), err)
	}
	return nil
}

// ask runs a query that answers yes or no.
func (s *Store) ask(ctx context.Context, query string) (yes bool, err error) {
	err = s.pool.QueryRow(ctx, query).Scan(&yes)
	return yes, err
}

// cleanDays makes the days ahead and drops those of which nothing is kept any more.
func (s *Store) cleanDays(ctx context.Context) (int, error) {
	if _, err := s.pool.Exec(ctx, s.days.make); err != nil {
		return 0, err
	}
	type day struct {
		Name string
		Rows int
	}
	rows, err := s.pool.Query(ctx, s.days.over)
	if err != nil {
		return 0, err
	}
	over, err := pgx.CollectRows(rows, pgx.RowToStructByPos[day])
	if err != nil {
		return 0, err
	}
	total := 0
	for _, d := range over {
		dropped, err := s.dropDay(ctx, d.Name)
		if err != nil {
			return total, fmt.Errorf("drop %s: %w", d.Name, err)
		}
		if dropped {
			total += d.Rows
		}
	}
	return total, nil
}

// dropDay drops a day unless something in it has not expired. Handlers are locked out for the moment of the drop, and while it waits for those
// at work, for half a second at most; after that the next Clean tries again. Under the lock it looks once more, for claims committed since.
func (s *Store) dropDay(ctx context.Context, name string) (dropped bool, err error) {
	defer func() {
		var answer *pgconn.PgError
		if errors.As(err, &answer) && answer.Code == "42P01" { // there is no such table: another Clean was faster
			err = nil
		}
	}()
	if kept, err := keeps(ctx, s.pool, name); err != nil || kept {
		return false, err
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '500ms'"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, s.days.lock); err != nil {
			return err
		}
		kept, err := keeps(ctx, tx, name)
		if err != nil || kept {
			return err
		}
		_, err = tx.Exec(ctx, "DROP TABLE "+name)
		dropped = err == nil
		return err
	})
	return dropped && err == nil, err
}

// keeps tells whether something in a day has not expired. Its BRIN index makes that quick, where the planner is made to take it.
func keeps(ctx context.Context, on interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}, name string) (kept bool, err error) {
	var batch pgx.Batch
	batch.Queue("SELECT set_config('enable_seqscan', 'off', true)")
	batch.Queue("SELECT EXISTS (SELECT 1 FROM " + name + " WHERE expires_at > (SELECT " + now + "))").
		QueryRow(func(row pgx.Row) error { return row.Scan(&kept) })
	err = on.SendBatch(ctx, &batch).Close()
	return kept, err
}
