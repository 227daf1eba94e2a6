package pgoutbox_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// Whatever part of the messages is in hand, in whatever order, that part is left out of what is read ahead, and then deleted: no other.
func TestAnyPartIsLeftOutAndSettled(t *testing.T) {
	t.Parallel()
	s, _, _ := newDatabase(t, pgoutbox.Config{})
	l, err := s.Lease(t.Context(), "a", time.Hour)
	require.NoError(t, err)
	ob := outbox.New(s, outbox.Config{})
	for _, share := range []float64{0, 0.01, 0.5, 0.9, 0.99, 1} {
		t.Run(fmt.Sprint(share), func(t *testing.T) {
			msgs := make([]pubsub.Message, 200)
			for i := range msgs {
				msgs[i] = message(fmt.Sprint(i))
			}
			store(t, ob, msgs...)
			all, err := s.Fetch(t.Context(), l, 1000)
			require.NoError(t, err)
			require.Len(t, numbers(all), len(msgs))
			var part []outbox.Record
			var rest []int64
			for _, r := range all {
				if rand.Float64() < share {
					part = append(part, r)
				} else {
					rest = append(rest, r.Seq)
				}
			}
			rand.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
			ahead, err := s.FetchExcept(t.Context(), l, part, 1000)
			require.NoError(t, err)
			require.Equal(t, rest, numbers(ahead))
			require.NoError(t, s.Settle(t.Context(), l, part, nil))
			left, err := s.Fetch(t.Context(), l, 1000)
			require.NoError(t, err)
			require.Equal(t, rest, numbers(left))
			require.NoError(t, s.Settle(t.Context(), l, left, nil))
		})
	}
}

// A message whose transaction commits late, with a number between those in hand, is neither left out nor deleted.
func TestLateCommitBetweenTheMessagesInHand(t *testing.T) {
	t.Parallel()
	s, pool, _ := newDatabase(t, pgoutbox.Config{})
	l, err := s.Lease(t.Context(), "a", time.Hour)
	require.NoError(t, err)
	ob := outbox.New(s, outbox.Config{})
	store(t, ob, message("before"))
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, ob.Publish(t.Context(), tx, message("late")))
	store(t, ob, message("after"))
	inHand, err := s.Fetch(t.Context(), l, 10)
	require.NoError(t, err)
	require.Len(t, numbers(inHand), 2)
	require.NoError(t, tx.Commit(t.Context()))
	ahead, err := s.FetchExcept(t.Context(), l, inHand, 10)
	require.NoError(t, err)
	require.Len(t, numbers(ahead), 1)
	require.Equal(t, "late", ahead[0].Message.Key)
	require.NoError(t, s.Settle(t.Context(), l, inHand, nil))
	left, err := s.Fetch(t.Context(), l, 10)
	require.NoError(t, err)
	require.Equal(t, numbers(ahead), numbers(left))
}

// A message that was published after all leaves no hold behind.
func TestSettledMessageLeavesNoHold(t *testing.T) {
	t.Parallel()
	s, pool, _ := newDatabase(t, pgoutbox.Config{})
	l, err := s.Lease(t.Context(), "a", time.Hour)
	require.NoError(t, err)
	store(t, outbox.New(s, outbox.Config{}), message("a"), message("b"), message("a"))
	records, err := s.Fetch(t.Context(), l, 10)
	require.NoError(t, err)
	holds := func() (n int) {
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM backstay_outbox_holds").Scan(&n))
		return n
	}
	failure := outbox.Failure{Record: records[0], Err: errors.New("refused")}
	require.NoError(t, s.Settle(t.Context(), l, nil, []outbox.Failure{failure}))
	require.Equal(t, 1, holds())
	require.NoError(t, s.Settle(t.Context(), l, records, nil))
	require.Zero(t, holds())
}

func numbers(records []outbox.Record) (seqs []int64) {
	for _, r := range records {
		seqs = append(seqs, r.Seq)
	}
	return seqs
}
