package pgoutbox

import (
	"context"
	"fmt"

	"github.com/backstay-go/backstay/backend/postgres/internal/pglisten"
)

// Listen calls wake, such as Relay.Notify, whenever a transaction that stored messages has committed, until ctx is done; then it
// returns nil. It has a connection of its own, outside the pool, asks every Config.ListenPing whether it still stands, and makes a
// new one when not; wake is called after each new connection, since something may have been missed. Trouble goes to the
// hook OnListenError. wake must not block.
func (s *Store) Listen(ctx context.Context, wake func()) error {
	pglisten.Listener{
		Pool: s.pool, Query: s.text.listen, Ping: s.config.ListenPing,
		OnError: func(err error) { s.onError(fmt.Errorf("pgoutbox: listen: %w", err)) },
	}.Run(ctx, wake)
	return nil
}
