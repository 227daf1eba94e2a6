package sqlsaga

import (
	"context"
	"database/sql"
	"errors"

	"github.com/backstay-go/backstay/saga"
)

type txKey struct{}

// Tx is the transaction of the step that ctx belongs to, if its InTx is set: what the step writes through it is committed
// together with the record that the step is done, and so happens exactly once. Nil outside of such a step. The runner ends
// the transaction; the step must not.
func Tx(ctx context.Context) *sql.Tx {
	tx, _ := ctx.Value(txKey{}).(*sql.Tx)
	return tx
}

// errFenced rolls back a transaction whose instance has moved on.
var errFenced = errors.New("sqlsaga: fenced")

// CommitInTx implements saga.TxStore.
func (s *Store) CommitInTx(ctx context.Context, fn func(ctx context.Context) ([]saga.Transition, error)) (bool, error) {
	var own error
	err := s.inTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		ts, err := fn(context.WithValue(ctx, txKey{}, tx))
		if err != nil {
			own = err
			return err
		}
		for i := range ts {
			recorded, err := s.apply(ctx, tx, &ts[i])
			if err != nil {
				return err
			}
			if i == 0 && !recorded {
				return errFenced
			}
		}
		return nil
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
