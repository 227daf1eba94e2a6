package memsaga_test

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
	"github.com/backstay-go/backstay/saga/sagatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStoreKeepsTheContract(t *testing.T) {
	sagatest.Run(t, func(*testing.T) saga.Store { return memsaga.New() })
}

func TestPurgeDeletesOnlyWhatEndedLongAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memsaga.New()
		for id, status := range map[string]saga.Status{
			"running": saga.Running, "stuck": saga.Stuck, "completed": saga.Completed, "aborted": saga.Aborted,
		} {
			in := saga.Instance{ID: id, Ref: saga.Ref{Name: "x", Version: 1}, Progress: saga.Progress{Status: saga.Running}}
			_, err := s.Create(t.Context(), in, 0)
			require.NoError(t, err)
			in.Status = status
			_, err = s.Commit(t.Context(), []saga.Transition{{ID: id, Token: 1, Next: &in.Progress}})
			require.NoError(t, err)
		}
		n, err := s.Purge(t.Context(), time.Hour, 10)
		require.NoError(t, err)
		require.Zero(t, n)
		<-time.After(time.Hour)
		n, err = s.Purge(t.Context(), time.Hour, 10)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		ins, err := s.List(t.Context(), saga.Filter{})
		require.NoError(t, err)
		require.Len(t, ins, 2)
	})
}

// What waits costs a place in the store and nothing else.
func TestACrowdOfWaitingInstances(t *testing.T) {
	n := 10_000
	if os.Getenv("BACKSTAY_LONG") == "1" {
		n = 100_000
	}
	sagatest.Crowd(t, memsaga.New(), n, nil)
}
