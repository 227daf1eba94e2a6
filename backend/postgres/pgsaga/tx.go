package pgsaga

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/backstay-go/backstay/saga"
)

type txKey struct{}

// Tx is the transaction of the step that ctx belongs to, if its InTx is set: what the step writes through it is committed
// together with the record that the step is done, and so happens exactly once. Nil outside of such a step. The runner ends
// the transaction; the step must not.
func Tx(ctx context.Context) pgx.Tx {
	tx, _ := ctx.Value(txKey{}).(pgx.Tx)
	return tx
}

// errFenced rolls back a transaction whose instance has moved on.
var errFenced = errors.New("pgsaga: fenced")

// CommitInTx implements saga.TxStore.
func (s *Store) CommitInTx(ctx context.Context, fn func(ctx context.Context) ([]saga.Transition, error)) (bool, error) {
	var own error
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		ts, err := fn(context.WithValue(ctx, txKey{}, tx))
		if err != nil {
			own = err
			return err
		}
		recorded := make([]bool, len(ts))
		w, err := s.sort(ts)
		if err == nil {
			err = s.apply(ctx, tx, w, recorded)
		}
		if err == nil && len(ts) > 0 && !recorded[0] {
			err = errFenced
		}
		return err
	})
	switch {
	case err == nil:
		return true, nil
	case own != nil:
		return false, own
	case errors.Is(err, errFenced):
		return false, nil
	default:
		return false, wrap("commit in transaction", err)
	}
}
