package mysqloutbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

func batch(n int) []pubsub.Message {
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i] = pubsub.Message{Topic: "orders.placed", Key: fmt.Sprint("order", i), Payload: make([]byte, 200)}
	}
	return msgs
}

// perEvent reports the cost of one message.
func perEvent(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
}

// BenchmarkInsert stores messages in a transaction of their own; floor is one INSERT of the same rows by hand.
func BenchmarkInsert(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("outbox/%d", n), func(b *testing.B) {
			s, _ := newStore(b)
			msgs := batch(n)
			b.ReportAllocs()
			for b.Loop() {
				put(b, s, msgs...)
			}
			perEvent(b, n)
		})
		b.Run(fmt.Sprintf("floor/%d", n), func(b *testing.B) {
			s, _ := newStore(b)
			msgs := batch(n)
			query := "INSERT INTO backstay_outbox (lane, id, topic, msg_key, header, payload, sent_at) VALUES (?, ?, ?, ?, ?, ?, ?)" +
				strings.Repeat(", (?, ?, ?, ?, ?, ?, ?)", n-1)
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, s.InTx(b.Context(), func(ctx context.Context, tx *sql.Tx) error {
					args := make([]any, 0, 7*n)
					for _, m := range msgs {
						args = append(args, 1, "0123456789abcdef0123456789abcdef", m.Topic, m.Key, "", m.Payload, 1)
					}
					_, err := tx.ExecContext(ctx, query, args...)
					return err
				}))
			}
			perEvent(b, n)
		})
	}
}

// BenchmarkDrain publishes a backlog to a publisher that does nothing; floor is SELECT … FOR UPDATE SKIP LOCKED and DELETE of as many
// rows at a time.
func BenchmarkDrain(b *testing.B) {
	const n, each = 10_000, 1000
	b.Run("relay", func(b *testing.B) {
		s, _ := newStore(b)
		b.ReportAllocs()
		for range b.N {
			fill(b, func() { put(b, s, batch(each)...) }, n/each)
			ctx, cancel := context.WithCancel(b.Context())
			left := n
			r := outbox.NewRelay(s, publisherFunc(func(_ context.Context, msgs ...pubsub.Message) error {
				if left -= len(msgs); left == 0 {
					cancel()
				}
				return nil
			}), outbox.RelayConfig{Batch: each})
			require.NoError(b, r.Run(ctx))
		}
		perEvent(b, n)
	})
	b.Run("floor", func(b *testing.B) {
		s, db := newStore(b)
		b.ReportAllocs()
		for range b.N {
			fill(b, func() { put(b, s, batch(each)...) }, n/each)
			for left := n; left > 0; {
				left -= takeByHand(b, db, each)
			}
		}
		perEvent(b, n)
	})
}

func fill(b *testing.B, put func(), times int) {
	b.StopTimer()
	for range times {
		put()
	}
	b.StartTimer()
}

func takeByHand(b *testing.B, db *sql.DB, limit int) (n int) {
	tx, err := db.BeginTx(b.Context(), &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	require.NoError(b, err)
	rows, err := tx.QueryContext(b.Context(), "SELECT seq, id, topic, msg_key, header, payload, sent_at FROM backstay_outbox ORDER BY seq LIMIT ? FOR UPDATE SKIP LOCKED", limit)
	require.NoError(b, err)
	var last int64
	for ; rows.Next(); n++ {
		var m pubsub.Message
		var header string
		var sent int64
		require.NoError(b, rows.Scan(&last, &m.ID, &m.Topic, &m.Key, &header, &m.Payload, &sent))
	}
	require.NoError(b, rows.Err())
	require.NoError(b, rows.Close())
	_, err = tx.ExecContext(b.Context(), "DELETE FROM backstay_outbox WHERE seq <= ?", last)
	require.NoError(b, err)
	require.NoError(b, tx.Commit())
	return n
}
