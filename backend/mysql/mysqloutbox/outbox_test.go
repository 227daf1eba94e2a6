package mysqloutbox_test

import (
	"database/sql"
	"testing"

	"github.com/backstay-go/backstay/outbox/outboxtest"
)

func TestOutboxConformance(t *testing.T) {
	t.Parallel()
	requireServer(t)
	outboxtest.Run(t, outboxtest.Harness[*sql.Tx]{
		ConcurrentTx: true,
		New: func(t *testing.T) outboxtest.Store[*sql.Tx] {
			s, _ := newStore(t)
			return s
		},
	})
}
