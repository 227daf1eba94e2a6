package outbox_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
)

// A store that answers every settlement with ErrFenced, whatever the reason: what was published is published again each time, so it is
// tried about once per PollMax, with the leases given up in between.
func TestFencedForEverIsNotAHotLoop(t *testing.T) {
	for name, batch := range map[string]int{"full batches": 100, "one small batch": 1000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, p := newMemStore(), &outboxtest.Publisher{}
				put(t, s, keys(500)...)
				var fencing atomic.Bool
				fencing.Store(true)
				s.fail = func(method string) error {
					if method == "Settle" && fencing.Load() {
						return fmt.Errorf("settle: %w", outbox.ErrFenced)
					}
					return nil
				}
				r := outbox.NewRelay(s, p, outbox.RelayConfig{Batch: batch})
				stop := run(t, r)
				for range 600 {
					after(time.Second)
					r.Notify() // commits go on meanwhile
				}
				require.LessOrEqual(t, p.Calls(), 610, "5 ms, doubled up to PollMax, and no more often from there on")
				require.Greater(t, p.Calls(), 550)
				require.EqualValues(t, p.Calls(), r.Stats().Fenced)
				require.Zero(t, r.Stats().Buckets)
				other, err := s.Lease(t.Context(), "other", time.Second)
				require.NoError(t, err)
				require.Equal(t, outbox.Buckets, other.Count(), "its leases are free for others")

				fencing.Store(false)
				after(10 * time.Second)
				require.Empty(t, s.records)
				require.Equal(t, outbox.Buckets, r.Stats().Buckets)
				stop()
			})
		})
	}
}

// A message that the store cannot read is parked, whatever MaxAttempts says, when those ahead of it in its key are out. Its key waits, others flow.
func TestUnreadableMessageIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newMemStore(), &outboxtest.Publisher{}
		put(t, s, "torn", "torn", "torn", "whole", "whole")
		torn := s.records[2]
		torn.Fault = errors.New("torn page")
		s.records[2] = torn
		var failures []outbox.Failure
		cfg := outbox.RelayConfig{MaxAttempts: -1}
		stop := run(t, outbox.NewRelay(s, p, cfg, outbox.OnFailure(func(f outbox.Failure) { failures = append(failures, f) })))
		after(time.Minute)
		require.Equal(t, 3, taken(p))
		require.Len(t, failures, 1)
		require.True(t, failures[0].Parked)
		require.EqualError(t, failures[0].Err, "torn page")
		list, err := s.Parked(t.Context(), 0, 10)
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.EqualValues(t, 2, list[0].Record.Seq)

		torn.Fault = nil // a person repairs it
		s.mu.Lock()
		s.records[2] = torn
		s.mu.Unlock()
		_, err = s.Requeue(t.Context(), 2)
		require.NoError(t, err)
		after(time.Minute)
		require.Equal(t, 5, taken(p))
		stop()
	})
}
