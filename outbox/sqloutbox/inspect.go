package sqloutbox

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// Parked implements outbox.Inspector.
func (s *Store) Parked(ctx context.Context, after int64, limit int) ([]outbox.Parked, error) {
	rows, err := s.db.QueryContext(ctx, s.text.parked, after, limit)
	if err != nil {
		return nil, fmt.Errorf("sqloutbox: parked: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var list []outbox.Parked
	for rows.Next() {
		var p outbox.Parked
		var since int64
		if p.Record, err = scanRecord(rows, &p.Reason, &since); err != nil {
			return nil, fmt.Errorf("sqloutbox: parked: %w", err)
		}
		p.Since = time.UnixMilli(since)
		list = append(list, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sqloutbox: parked: %w", err)
	}
	return list, nil
}

// Requeue implements outbox.Inspector.
func (s *Store) Requeue(ctx context.Context, seqs ...int64) (int, error) {
	return s.repair(ctx, "requeue", seqs, nil)
}

// Skip implements outbox.Inspector.
func (s *Store) Skip(ctx context.Context, seqs ...int64) (int, error) {
	return s.repair(ctx, "skip", seqs, func(ctx context.Context, tx *sql.Tx, list string) error {
		_, err := tx.ExecContext(ctx, s.deleteSeqs("outbox", "PRIMARY", list)+
			s.sql(" AND seq IN (SELECT seq FROM {p}outbox_holds WHERE parked_at IS NOT NULL)"))
		return err
	})
}

// Edit implements outbox.Inspector.
func (s *Store) Edit(ctx context.Context, seq int64, m pubsub.Message) (int, error) {
	m.ID, m.Key = "", "" // not looked at
	if err := m.Validate(); err != nil {
		return 0, fmt.Errorf("sqloutbox: edit: %w", err)
	}
	header, err := EncodeHeader(m.Header)
	if err != nil {
		return 0, fmt.Errorf("sqloutbox: edit: %w", err)
	}
	var found []int64
	err = s.own(ctx, func(ctx context.Context, tx *sql.Tx) error {
		// The lock on the hold keeps it from being requeued, and the old content from being published, before the edit is committed.
		if found, err = integers(tx.QueryContext(ctx, s.text.lockParked, seq)); err != nil || len(found) == 0 {
			return err
		}
		_, err := tx.ExecContext(ctx, s.text.edit, m.Topic, header, nonNil(m.Payload), seq)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sqloutbox: edit: %w", err)
	}
	return len(found), nil
}

// repair runs first on parked messages, then ends their holds.
func (s *Store) repair(ctx context.Context, doing string, seqs []int64, first func(context.Context, *sql.Tx, string) error) (int, error) {
	if len(seqs) == 0 {
		return 0, nil
	}
	list := in(len(seqs), func(i int) int64 { return seqs[i] })
	var n int64
	err := s.own(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if first != nil {
			if err := first(ctx, tx, list); err != nil {
				return err
			}
		}
		done, err := tx.ExecContext(ctx, s.sql("DELETE FROM {p}outbox_holds WHERE parked_at IS NOT NULL AND seq IN "+list))
		if err != nil {
			return err
		}
		n, err = done.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sqloutbox: %s: %w", doing, err)
	}
	return int(n), nil
}
