package pgoutbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backstay-go/backstay/outbox/sqloutbox"
)

// Claim implements outbox.InboxStore. In a transaction at REPEATABLE READ or SERIALIZABLE a duplicate whose first delivery committed
// after the transaction's first statement fails with a serialization failure (SQLSTATE 40001): roll back and handle it again. An inbox by day
// refuses such transactions altogether.
func (s *Store) Claim(ctx context.Context, tx pgx.Tx, consumer, id string, retention time.Duration) (first bool, result []byte, err error) {
	done, err := tx.Exec(ctx, s.text.claim, consumer, id, retention.Milliseconds())
	if err != nil {
		return false, nil, fmt.Errorf("pgoutbox: claim: %w", err)
	}
	if done.RowsAffected() > 0 {
		return true, nil, nil
	}
	if err := tx.QueryRow(ctx, s.text.result, consumer, id).Scan(&result); err != nil {
		return false, nil, fmt.Errorf("pgoutbox: claim: %w", err)
	}
	return false, result, nil
}

// Save implements outbox.InboxStore.
func (s *Store) Save(ctx context.Context, tx pgx.Tx, consumer, id string, result []byte) error {
	if _, err := tx.Exec(ctx, s.text.save, result, consumer, id); err != nil {
		return fmt.Errorf("pgoutbox: save: %w", err)
	}
	return nil
}

// Forget implements outbox.InboxStore.
func (s *Store) Forget(ctx context.Context, tx pgx.Tx, consumer, id string) error {
	if _, err := tx.Exec(ctx, s.text.forget, consumer, id); err != nil {
		return fmt.Errorf("pgoutbox: forget: %w", err)
	}
	return nil
}

// Clean implements outbox.InboxStore. An inbox by day, whatever Config says, it cleans by days, without a limit: see Config.InboxByDay. Then the
// number is the server's estimate.
func (s *Store) Clean(ctx context.Context, limit int) (n int, err error) {
	divided, err := s.ask(ctx, s.days.divided)
	if err == nil && divided {
		n, err = s.cleanDays(ctx)
	}
	if err != nil {
		return n, fmt.Errorf("pgoutbox: clean: %w", err)
	}
	if divided {
		return n, nil
	}
	err = s.portable(func(p *sqloutbox.Store) error { n, err = p.Clean(ctx, limit); return err })
	return n, err
}
