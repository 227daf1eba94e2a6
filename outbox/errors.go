package outbox

import "errors"

var (
	// ErrFenced is returned by Queue.Settle when another relay has taken over a bucket: those messages may be published
	// once more.
	ErrFenced = errors.New("outbox: the lease was lost to another relay")
	// ErrInDoubt is matched by the error of InTx when the commit was sent and not confirmed: the transaction, with its messages,
	// may have taken place. Any other error of InTx means that it did not. A database that refuses the commit, say for a
	// deferred constraint, counts as in doubt where the store cannot tell.
	ErrInDoubt = errors.New("outbox: the commit may or may not have taken place")
)
