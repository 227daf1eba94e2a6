package pgoutbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
)

// Lease implements outbox.Queue.
func (s *Store) Lease(ctx context.Context, owner string, ttl time.Duration) (l outbox.Leases, err error) {
	err = s.portable(func(p *sqloutbox.Store) error { l, err = p.Lease(ctx, owner, ttl); return err })
	return l, err
}

// Release implements outbox.Queue.
func (s *Store) Release(ctx context.Context, l outbox.Leases) error {
	return s.portable(func(p *sqloutbox.Store) error { return p.Release(ctx, l) })
}

// Backlog implements outbox.Queue. It counts up to 100 000 pending messages.
func (s *Store) Backlog(ctx context.Context) (b outbox.Backlog, err error) {
	err = s.portable(func(p *sqloutbox.Store) error { b, err = p.Backlog(ctx); return err })
	return b, err
}

// Fetch implements outbox.Queue.
func (s *Store) Fetch(ctx context.Context, l outbox.Leases, limit int) ([]outbox.Record, error) {
	low, err := s.lowWater(ctx)
	if err != nil {
		return nil, fmt.Errorf("pgoutbox: fetch: low-water mark: %w", err)
	}
	rows, err := s.pool.Query(ctx, s.text.fetch, low, int64(l.Mask()), limit)
	if err != nil {
		return nil, fmt.Errorf("pgoutbox: fetch: %w", err)
	}
	defer rows.Close()
	var records []outbox.Record
	for rows.Next() {
		r, err := scanRecord(rows)
		if err != nil {
			return nil, fmt.Errorf("pgoutbox: fetch: %w", err)
		}
		records = append(records, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("pgoutbox: fetch: %w", err)
	}
	if len(records) > 0 {
		s.mark.seen(records[0].Seq)
	}
	return records, nil
}

func scanRecord(rows pgx.Rows) (outbox.Record, error) {
	var r outbox.Record
	var header string
	var sent, head int64
	m := &r.Message
	if err := rows.Scan(&r.Seq, &r.Lane, &m.ID, &m.Topic, &m.Key, &header, &m.Payload, &sent, &r.Attempts, &head); err != nil {
		return r, err
	}
	if head != r.Seq {
		r.Attempts = 0 // they belong to the message that was the lane's head
	}
	m.Time = time.Unix(0, sent)
	if header == "" {
		return r, nil
	}
	if err := json.Unmarshal([]byte(header), &m.Header); err != nil {
		return r, fmt.Errorf("message %d: header: %w", r.Seq, err)
	}
	return r, nil
}

// Settle implements outbox.Queue, in one round trip: the fencing check and the change it protects are one statement, or two of
// one transaction where something has failed.
func (s *Store) Settle(ctx context.Context, l outbox.Leases, published []outbox.Record, failed []outbox.Failure) error {
	var batch pgx.Batch
	var held [outbox.Buckets]bool
	see := func(row pgx.Row) error {
		var buckets []int64
		if err := row.Scan(&buckets); err != nil {
			return err
		}
		for _, b := range buckets {
			held[b] = true
		}
		return nil
	}
	if len(published) > 0 {
		batch.Queue(s.text.remove, l.Owner, l.Epochs[:], seqs(published)).QueryRow(see)
	}
	if len(failed) > 0 {
		batch.Queue(s.text.hold, append([]any{l.Owner, l.Epochs[:]}, columns(failed)...)...).QueryRow(see)
	}
	if batch.Len() == 0 {
		return nil
	}
	if err := s.pool.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("pgoutbox: settle: %w", err)
	}
	refused := 0
	for _, r := range published {
		if !held[r.Bucket()] {
			refused++
		}
	}
	for _, f := range failed {
		if !held[f.Record.Bucket()] {
			refused++
		}
	}
	if refused > 0 {
		return fmt.Errorf("pgoutbox: settle: %d of %d messages: %w", refused, len(published)+len(failed), outbox.ErrFenced)
	}
	return nil
}

func seqs(records []outbox.Record) []int64 {
	list := make([]int64, len(records))
	for i, r := range records {
		list[i] = r.Seq
	}
	return list
}

// columns are the arrays of the holds to make.
func columns(failed []outbox.Failure) []any {
	n := len(failed)
	numbers, errs, parked := make([]int64, 4*n), make([]string, n), make([]bool, n)
	lanes, heads, attempts, delays := numbers[:n], numbers[n:2*n], numbers[2*n:3*n], numbers[3*n:]
	for i, f := range failed {
		lanes[i], heads[i], attempts[i] = f.Record.Lane, f.Record.Seq, int64(f.Record.Attempts)
		errs[i], delays[i], parked[i] = clean(f.Err.Error()), f.Delay.Milliseconds(), f.Parked
	}
	return []any{lanes, heads, attempts, errs, delays, parked}
}
