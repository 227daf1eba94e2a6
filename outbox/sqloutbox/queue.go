package sqloutbox

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// Lease implements outbox.Queue.
func (s *Store) Lease(ctx context.Context, owner string, ttl time.Duration) (outbox.Leases, error) {
	var l outbox.Leases
	err := s.own(ctx, func(ctx context.Context, tx *sql.Tx) error {
		// The rows of the leases are read first, with their lock: relays that lease at the same time take turns here.
		rows, err := s.leases(ctx, tx)
		if err != nil {
			return err
		}
		alive, err := s.join(ctx, tx, owner, ttl)
		if err != nil {
			return err
		}
		l = outbox.Leases{Owner: owner, Share: (outbox.Buckets + alive - 1) / alive}
		return s.take(ctx, tx, &l, rows, ttl)
	})
	if err != nil {
		return outbox.Leases{}, fmt.Errorf("sqloutbox: lease: %w", err)
	}
	return l, nil
}

type leaseRow struct {
	bucket  int
	owner   string
	epoch   int64
	expired bool
}

func (s *Store) leases(ctx context.Context, tx *sql.Tx) ([]leaseRow, error) {
	rows, err := tx.QueryContext(ctx, s.text.leases)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	all := make([]leaseRow, 0, outbox.Buckets)
	for rows.Next() {
		var r leaseRow
		if err := rows.Scan(&r.bucket, &r.owner, &r.epoch, &r.expired); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// join makes owner known as alive and counts all that are.
func (s *Store) join(ctx context.Context, tx *sql.Tx, owner string, ttl time.Duration) (alive int, err error) {
	if _, err := tx.ExecContext(ctx, s.text.bury, owner); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, s.text.join, owner, ttl.Milliseconds()); err != nil {
		return 0, err
	}
	err = tx.QueryRowContext(ctx, s.text.alive).Scan(&alive)
	return alive, err
}

// take renews what is held and takes what is free up to the share.
func (s *Store) take(ctx context.Context, tx *sql.Tx, l *outbox.Leases, rows []leaseRow, ttl time.Duration) error {
	var keep, add []int64
	for _, r := range rows {
		if r.owner == l.Owner {
			keep = append(keep, int64(r.bucket))
			l.Epochs[r.bucket] = r.epoch
		}
	}
	for _, r := range rows {
		if r.owner != l.Owner && r.expired && len(keep)+len(add) < l.Share {
			add = append(add, int64(r.bucket))
			l.Epochs[r.bucket] = r.epoch + 1
		}
	}
	if err := s.update(ctx, tx, keep, "SET expires_at = {now} + ?", ttl.Milliseconds()); err != nil {
		return err
	}
	return s.update(ctx, tx, add, "SET expires_at = {now} + ?, owner = ?, epoch = epoch + 1", ttl.Milliseconds(), l.Owner)
}

// update changes the leases of some buckets.
func (s *Store) update(ctx context.Context, tx *sql.Tx, buckets []int64, set string, args ...any) error {
	if len(buckets) == 0 {
		return nil
	}
	list := in(len(buckets), func(i int) int64 { return buckets[i] })
	_, err := tx.ExecContext(ctx, s.sql("UPDATE {p}outbox_leases "+set+" WHERE bucket IN "+list), args...)
	return err
}

// Release implements outbox.Queue.
func (s *Store) Release(ctx context.Context, l outbox.Leases) error {
	err := s.own(ctx, func(ctx context.Context, tx *sql.Tx) error {
		held, err := s.stillHeld(ctx, tx, l)
		if err != nil {
			return err
		}
		var give []int64
		for bucket, ok := range held {
			if ok {
				give = append(give, int64(bucket))
			}
		}
		if err := s.update(ctx, tx, give, "SET expires_at = 0, owner = ''"); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, s.text.dead, l.Owner, l.Owner)
		return err
	})
	if err != nil {
		return fmt.Errorf("sqloutbox: release: %w", err)
	}
	return nil
}

// stillHeld tells which buckets of l its owner has under the same epoch, and keeps them so until tx ends.
func (s *Store) stillHeld(ctx context.Context, tx *sql.Tx, l outbox.Leases) (held [outbox.Buckets]bool, err error) {
	rows, err := tx.QueryContext(ctx, s.text.held, l.Owner)
	if err != nil {
		return held, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var bucket int
		var epoch int64
		if err := rows.Scan(&bucket, &epoch); err != nil {
			return held, err
		}
		held[bucket] = epoch != 0 && epoch == l.Epochs[bucket]
	}
	return held, rows.Err()
}

// Fetch implements outbox.Queue.
func (s *Store) Fetch(ctx context.Context, l outbox.Leases, limit int) ([]outbox.Record, error) {
	return s.FetchExcept(ctx, l, nil, limit)
}

// FetchExcept implements outbox.Prefetcher.
func (s *Store) FetchExcept(ctx context.Context, l outbox.Leases, inHand []outbox.Record, limit int) ([]outbox.Record, error) {
	low, begins := s.mark.begin()
	records, err := s.read(ctx, low, l, inHand, limit)
	if err != nil {
		return nil, fmt.Errorf("sqloutbox: fetch: %w", err)
	}
	s.mark.saw(records)
	if begins {
		if err := s.raiseMark(ctx); err != nil {
			return nil, fmt.Errorf("sqloutbox: fetch: low-water mark: %w", err)
		}
	}
	return records, nil
}

// read fetches above low.
func (s *Store) read(ctx context.Context, low int64, l outbox.Leases, inHand []outbox.Record, limit int) ([]outbox.Record, error) {
	text := s.text.fetch
	if len(inHand) > 0 {
		list := in(len(inHand), func(i int) int64 { return inHand[i].Seq })
		text = s.text.fetchExcept + list + s.text.fetchRest
	}
	rows, err := s.db.QueryContext(ctx, text, low, int64(l.Mask()), limit)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var records []outbox.Record
	for rows.Next() {
		r, err := scanRecord(rows)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, rows.Err()
}

// Settle implements outbox.Queue.
func (s *Store) Settle(ctx context.Context, l outbox.Leases, published []outbox.Record, failed []outbox.Failure) error {
	refused := 0
	err := s.own(ctx, func(ctx context.Context, tx *sql.Tx) error {
		held, err := s.stillHeld(ctx, tx, l)
		if err != nil {
			return err
		}
		gone := slices.DeleteFunc(slices.Clone(published), func(r outbox.Record) bool { return !held[r.Bucket()] })
		kept := slices.DeleteFunc(slices.Clone(failed), func(f outbox.Failure) bool { return !held[f.Record.Bucket()] })
		refused = len(published) - len(gone) + len(failed) - len(kept)
		if err := s.remove(ctx, tx, gone); err != nil {
			return err
		}
		return s.hold(ctx, tx, kept)
	})
	switch {
	case err != nil:
		return fmt.Errorf("sqloutbox: settle: %w", err)
	case refused > 0:
		return fmt.Errorf("sqloutbox: settle: %d of %d messages: %w", refused, len(published)+len(failed), outbox.ErrFenced)
	default:
		return nil
	}
}

// remove deletes messages, and the holds of which they were the head.
func (s *Store) remove(ctx context.Context, tx *sql.Tx, records []outbox.Record) error {
	if len(records) == 0 {
		return nil
	}
	list := in(len(records), func(i int) int64 { return records[i].Seq })
	if _, err := tx.ExecContext(ctx, s.deleteSeqs("outbox", "PRIMARY", list)); err != nil {
		return err
	}
	lanes := in(len(records), func(i int) int64 { return records[i].Lane })
	_, err := tx.ExecContext(ctx, s.sql("DELETE FROM {p}outbox_holds WHERE lane IN "+lanes+" AND seq IN "+list))
	return err
}

// hold makes the lanes of what failed wait.
func (s *Store) hold(ctx context.Context, tx *sql.Tx, failed []outbox.Failure) error {
	for chunk := range slices.Chunk(failed, maxRows) {
		args := make([]any, 0, 6*len(chunk))
		for _, f := range chunk {
			r := f.Record
			args = append(args, r.Lane, r.Seq, r.Attempts, ErrorText(f.Err), f.Delay.Milliseconds(), f.Parked)
		}
		query := s.bind(s.text.hold + rowList(s.text.holdRow, len(chunk)) + s.text.holdReplace)
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return err
		}
	}
	return nil
}

// Backlog implements outbox.Queue. It counts up to 100 000 pending messages, and none that the low-water mark hides.
func (s *Store) Backlog(ctx context.Context) (outbox.Backlog, error) {
	var b outbox.Backlog
	var age int64
	if err := s.db.QueryRowContext(ctx, s.text.backlog, s.mark.now(), s.mark.now()).Scan(&b.Pending, &b.Parked, &age); err != nil {
		return b, fmt.Errorf("sqloutbox: backlog: %w", err)
	}
	b.OldestAge = time.Duration(max(age, 0)) * time.Millisecond
	return b, nil
}
