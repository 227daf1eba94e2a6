package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
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

// BenchmarkOutboxInsert stores messages in a transaction of their own; floor is the same rows by hand.
func BenchmarkOutboxInsert(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("outbox/%d", n), func(b *testing.B) {
			s, _ := newOutbox(b)
			ob := outbox.New(s, outbox.Config{})
			msgs := batch(n)
			b.ReportAllocs()
			for b.Loop() {
				store(b, ob, msgs...)
			}
			perEvent(b, n)
		})
		b.Run(fmt.Sprintf("floor/%d", n), func(b *testing.B) {
			s, _ := newOutbox(b)
			msgs := batch(n)
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, s.InTx(b.Context(), func(ctx context.Context, tx *sql.Tx) error { return insertByHand(ctx, tx, msgs) }))
			}
			perEvent(b, n)
		})
	}
}

func insertByHand(ctx context.Context, tx *sql.Tx, msgs []pubsub.Message) error {
	stmt, err := tx.PrepareContext(ctx, "INSERT INTO backstay_outbox (lane, id, topic, msg_key, header, payload, sent_at, stored_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	for _, m := range msgs {
		if _, err := stmt.ExecContext(ctx, 1, "0123456789abcdef0123456789abcdef", m.Topic, m.Key, "", m.Payload, 1, 1); err != nil {
			return err
		}
	}
	return stmt.Close()
}

// BenchmarkOutboxDrain publishes a backlog to a publisher that does nothing; floor is DELETE … RETURNING of as many rows at a time.
func BenchmarkOutboxDrain(b *testing.B) {
	const n = 20_000
	fill := func(b *testing.B, ob *outbox.Outbox[*sql.Tx]) {
		b.StopTimer()
		for range n / 1000 {
			store(b, ob, batch(1000)...)
		}
		b.StartTimer()
	}
	b.Run("relay", func(b *testing.B) {
		s, _ := newOutbox(b)
		ob := outbox.New(s, outbox.Config{})
		b.ReportAllocs()
		for range b.N {
			fill(b, ob)
			ctx, cancel := context.WithCancel(b.Context())
			left := n
			r := outbox.NewRelay(s, publisherFunc(func(_ context.Context, msgs ...pubsub.Message) error {
				if left -= len(msgs); left == 0 {
					cancel()
				}
				return nil
			}), outbox.RelayConfig{Batch: 1000})
			require.NoError(b, r.Run(ctx))
		}
		perEvent(b, n)
	})
	b.Run("floor", func(b *testing.B) {
		s, db := newOutbox(b)
		ob := outbox.New(s, outbox.Config{})
		b.ReportAllocs()
		for range b.N {
			fill(b, ob)
			for left := n; left > 0; {
				left -= deleteByHand(b, db, 1000)
			}
		}
		perEvent(b, n)
	})
}

func deleteByHand(b *testing.B, db *sql.DB, limit int) (n int) {
	rows, err := db.QueryContext(b.Context(), "DELETE FROM backstay_outbox WHERE seq IN (SELECT seq FROM backstay_outbox ORDER BY seq LIMIT ?) "+
		"RETURNING id, topic, msg_key, header, payload, sent_at", limit)
	require.NoError(b, err)
	for ; rows.Next(); n++ {
		var m pubsub.Message
		var header string
		var sent int64
		require.NoError(b, rows.Scan(&m.ID, &m.Topic, &m.Key, &header, &m.Payload, &sent))
	}
	require.NoError(b, rows.Err())
	require.NoError(b, rows.Close())
	return n
}
