package pgoutbox

import (
	"context"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

// Parked implements outbox.Inspector.
func (s *Store) Parked(ctx context.Context, after int64, limit int) (list []outbox.Parked, err error) {
	err = s.portable(func(p *sqloutbox.Store) error { list, err = p.Parked(ctx, after, limit); return err })
	return list, err
}

// Requeue implements outbox.Inspector.
func (s *Store) Requeue(ctx context.Context, seqs ...int64) (n int, err error) {
	err = s.portable(func(p *sqloutbox.Store) error { n, err = p.Requeue(ctx, seqs...); return err })
	return n, err
}

// Skip implements outbox.Inspector.
func (s *Store) Skip(ctx context.Context, seqs ...int64) (n int, err error) {
	err = s.portable(func(p *sqloutbox.Store) error { n, err = p.Skip(ctx, seqs...); return err })
	return n, err
}

// Edit implements outbox.Inspector.
func (s *Store) Edit(ctx context.Context, seq int64, m pubsub.Message) (n int, err error) {
	err = s.portable(func(p *sqloutbox.Store) error { n, err = p.Edit(ctx, seq, m); return err })
	return n, err
}
