package pgsaga_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgsaga"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagatest"
)

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t, pgtest.Database(t))
	var n atomic.Int64
	sagatest.Run(t, func(t *testing.T) saga.Store {
		store, err := pgsaga.New(pool, pgsaga.Config{Prefix: fmt.Sprintf("t%d_", n.Add(1))})
		require.NoError(t, err)
		require.NoError(t, store.Migrate(t.Context()))
		return store
	})
}
