package saga_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

// slow is a store that takes its time, and counts what is asked of it.
type slow struct {
	saga.Store
	claims, unowned atomic.Int64
}

func (s *slow) Create(ctx context.Context, in saga.Instance, lease time.Duration) (bool, error) {
	if in.Owner == "" {
		s.unowned.Add(1)
	}
	<-time.After(time.Millisecond)
	return s.Store.Create(ctx, in, lease)
}

func (s *slow) Claim(ctx context.Context, c saga.Claim) ([]saga.Instance, error) {
	s.claims.Add(1)
	<-time.After(time.Millisecond)
	return s.Store.Claim(ctx, c)
}

// As many clients as there are slots, each with one saga at a time, find a slot for every one: the store is neither asked to hand back what
// was started here nor looked into because a slot is free.
func TestClientsThatTakeTurnsNeverWantForASlot(t *testing.T) {
	for name, one := range map[string]func(ctx context.Context, r *saga.Runner, d *saga.Definition[order], id string) error{
		"Start and Wait": func(ctx context.Context, r *saga.Runner, d *saga.Definition[order], id string) error {
			if err := saga.Start(ctx, r, d, id, order{}); err != nil {
				return err
			}
			_, err := saga.Wait(ctx, r, d, id)
			return err
		},
		"Execute": func(ctx context.Context, r *saga.Runner, d *saga.Definition[order], id string) error {
			_, err := saga.Execute(ctx, r, d, id, order{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const clients, each = 4, 250
				store := &slow{Store: memsaga.New()}
				d := define(t, new(journal).step("a", nil, nil))
				r, err := saga.NewRunner(store, saga.Config{Concurrency: clients, PollMax: 100 * time.Millisecond}, d)
				require.NoError(t, err)
				defer running(t, r)()
				failed := make(chan error, clients*each)
				for c := range clients {
					go func() {
						for i := range each {
							failed <- one(t.Context(), r, d, strconv.Itoa(c)+"/"+strconv.Itoa(i))
						}
					}()
				}
				for range clients * each {
					require.NoError(t, <-failed)
				}
				require.Zero(t, store.unowned.Load())
				require.Less(t, store.claims.Load(), int64(clients*each/10), "a look now and then, and not with every slot")
			})
		})
	}
}

// What finds no slot is claimed as soon as one is free, not with the next poll.
func TestAFreeSlotIsUsedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		d := define(t, new(journal).step("a", func(context.Context) error { <-release; return nil }, nil))
		r, err := saga.NewRunner(memsaga.New(), saga.Config{Concurrency: 1, PollMax: time.Hour}, d)
		require.NoError(t, err)
		defer running(t, r)()
		for id := range 3 {
			require.NoError(t, saga.Start(t.Context(), r, d, strconv.Itoa(id), order{}))
		}
		time.Sleep(time.Minute) // the pauses have grown
		began := time.Now()
		close(release)
		for id := range 3 {
			_, err := saga.Wait(t.Context(), r, d, strconv.Itoa(id))
			require.NoError(t, err)
		}
		require.Less(t, time.Since(began), 10*time.Millisecond)
	})
}
