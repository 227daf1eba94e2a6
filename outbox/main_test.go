package outbox_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/outbox/outboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The suite against its reference: it must not ask for more than the contract.
func TestSuiteOnTheReferenceStore(t *testing.T) {
	outboxtest.Run(t, outboxtest.Harness[*memTx]{
		New:          func(*testing.T) outboxtest.Store[*memTx] { return newMemStore() },
		ConcurrentTx: true,
	})
}
