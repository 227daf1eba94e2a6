package pgsaga_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
)

func TestMain(m *testing.M) {
	pgtest.Overlap()
	goleak.VerifyTestMain(m)
}
