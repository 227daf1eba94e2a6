package sqloutbox

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Claim implements outbox.InboxStore.
func (s *Store) Claim(ctx context.Context, tx *sql.Tx, consumer, id string, retention time.Duration) (first bool, result []byte, err error) {
	if limit := s.dialect.maxClaim; limit[0] > 0 && (len(consumer) > limit[0] || len(id) > limit[1]) {
		return false, nil, fmt.Errorf("sqloutbox: claim: consumer and ID have %d and %d bytes, more than %d and %d", len(consumer), len(id), limit[0], limit[1])
	}
	done, err := tx.ExecContext(ctx, s.text.claim, consumer, id, retention.Milliseconds())
	if err != nil {
		return false, nil, fmt.Errorf("sqloutbox: claim: %w", err)
	}
	n, err := done.RowsAffected()
	if err != nil || n > 0 {
		return n > 0, nil, err
	}
	if err := tx.QueryRowContext(ctx, s.text.result, consumer, id).Scan(&result); err != nil {
		return false, nil, fmt.Errorf("sqloutbox: claim: %w", err)
	}
	return false, result, nil
}

// Save implements outbox.InboxStore.
func (s *Store) Save(ctx context.Context, tx *sql.Tx, consumer, id string, result []byte) error {
	if _, err := tx.ExecContext(ctx, s.text.save, result, consumer, id); err != nil {
		return fmt.Errorf("sqloutbox: save: %w", err)
	}
	return nil
}

// Forget implements outbox.InboxStore.
func (s *Store) Forget(ctx context.Context, tx *sql.Tx, consumer, id string) error {
	if _, err := tx.ExecContext(ctx, s.text.forget, consumer, id); err != nil {
		return fmt.Errorf("sqloutbox: forget: %w", err)
	}
	return nil
}

// Clean implements outbox.InboxStore.
func (s *Store) Clean(ctx context.Context, limit int) (int, error) {
	var n int64
	err := s.own(ctx, func(ctx context.Context, tx *sql.Tx) error {
		seqs, err := integers(tx.QueryContext(ctx, s.text.expired, limit))
		if err != nil || len(seqs) == 0 {
			return err
		}
		list := in(len(seqs), func(i int) int64 { return seqs[i] })
		done, err := tx.ExecContext(ctx, s.deleteSeqs("inbox", "by_seq", list))
		if err != nil {
			return err
		}
		n, err = done.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sqloutbox: clean: %w", err)
	}
	return int(n), nil
}

// integers reads a single column.
func integers(rows *sql.Rows, err error) ([]int64, error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var list []int64
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, rows.Err()
}
