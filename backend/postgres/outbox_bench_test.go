package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

func benchBatch(n int) []pubsub.Message {
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

// BenchmarkOutboxPublish stores messages in a transaction that also changes a row of the service's; floor is the same rows by hand.
func BenchmarkOutboxPublish(b *testing.B) {
	for _, n := range []int{1, 100} {
		for _, subject := range []string{"outbox", "floor"} {
			b.Run(fmt.Sprintf("%s/%d", subject, n), func(b *testing.B) {
				s, pool, _ := newDatabase(b, pgoutbox.Config{})
				_, err := pool.Exec(b.Context(), "CREATE TABLE orders (id BIGINT PRIMARY KEY, state TEXT); INSERT INTO orders VALUES (1, '')")
				require.NoError(b, err)
				ob, msgs := outbox.New(s, outbox.Config{}), benchBatch(n)
				b.ReportAllocs()
				for b.Loop() {
					require.NoError(b, s.InTx(b.Context(), func(ctx context.Context, tx pgx.Tx) error {
						if _, err := tx.Exec(ctx, "UPDATE orders SET state = $1 WHERE id = 1", "paid"); err != nil {
							return err
						}
						if subject == "floor" {
							return insertByHand(ctx, tx, msgs)
						}
						return ob.Publish(ctx, tx, msgs...)
					}))
				}
				perEvent(b, n)
			})
		}
	}
}

func insertByHand(ctx context.Context, tx pgx.Tx, msgs []pubsub.Message) error {
	const insert = "INSERT INTO backstay_outbox (lane, id, topic, msg_key, header, payload, sent_at) "
	const id = "0123456789abcdef0123456789abcdef"
	if len(msgs) == 1 {
		m := msgs[0]
		_, err := tx.Exec(ctx, insert+"VALUES ($1, $2, $3, $4, $5, $6, $7)", 1, id, m.Topic, m.Key, "", m.Payload, 1)
		return err
	}
	n := len(msgs)
	lanes, ids, topics, keys, headers, payloads := make([]int64, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([][]byte, n)
	for i, m := range msgs {
		ids[i], topics[i], keys[i], payloads[i] = id, m.Topic, m.Key, m.Payload
	}
	_, err := tx.Exec(ctx, insert+"SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bigint[])",
		lanes, ids, topics, keys, headers, payloads, lanes)
	return err
}

// BenchmarkOutboxDrain publishes a backlog to a publisher that does nothing, by one relay in batches of 1,000, in the order of the keys;
// floor is DELETE … RETURNING of as many rows at a time, skipping what others have locked.
func BenchmarkOutboxDrain(b *testing.B) {
	const n, batch = 20_000, 1000
	setup := func(b *testing.B) (*pgoutbox.Store, *pgxpool.Pool, func()) {
		s, pool, _ := newDatabase(b, pgoutbox.Config{})
		ob := outbox.New(s, outbox.Config{})
		return s, pool, func() {
			b.StopTimer()
			for range n / 1000 {
				store(b, ob, benchBatch(1000)...)
			}
			b.StartTimer()
		}
	}
	b.Run("relay", func(b *testing.B) {
		s, _, fill := setup(b)
		b.ReportAllocs()
		for range b.N {
			fill()
			ctx, cancel := context.WithCancel(b.Context())
			left := n
			r := outbox.NewRelay(s, publisherFunc(func(_ context.Context, msgs ...pubsub.Message) error {
				if left -= len(msgs); left == 0 {
					cancel()
				}
				return nil
			}), outbox.RelayConfig{Batch: batch})
			require.NoError(b, r.Run(ctx))
		}
		perEvent(b, n)
	})
	b.Run("floor", func(b *testing.B) {
		_, pool, fill := setup(b)
		b.ReportAllocs()
		for range b.N {
			fill()
			for left := n; left > 0; {
				left -= deleteByHand(b, pool, batch)
			}
		}
		perEvent(b, n)
	})
}

func deleteByHand(b *testing.B, pool *pgxpool.Pool, limit int) (n int) {
	rows, err := pool.Query(b.Context(), "DELETE FROM backstay_outbox WHERE seq IN (SELECT seq FROM backstay_outbox ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED) "+
		"RETURNING id, topic, msg_key, header, payload, sent_at", limit)
	require.NoError(b, err)
	defer rows.Close()
	for ; rows.Next(); n++ {
		var m pubsub.Message
		var header string
		var sent int64
		require.NoError(b, rows.Scan(&m.ID, &m.Topic, &m.Key, &header, &m.Payload, &sent))
	}
	require.NoError(b, rows.Err())
	return n
}

// BenchmarkOutboxWake is the time from commit to publisher at low load; floor is that from NOTIFY to a listener.
func BenchmarkOutboxWake(b *testing.B) {
	report := func(b *testing.B, took []time.Duration) {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	}
	measure := func(b *testing.B, arrived <-chan time.Time, send func() time.Time) {
		var took []time.Duration
		pause := time.NewTicker(10 * time.Millisecond) // low load
		defer pause.Stop()
		for b.Loop() {
			<-pause.C
			sent := send()
			took = append(took, (<-arrived).Sub(sent))
		}
		report(b, took)
	}
	b.Run("outbox", func(b *testing.B) {
		s, _, _ := newDatabase(b, pgoutbox.Config{})
		arrived := make(chan time.Time, 1)
		relay, _ := run(b, s, publisherFunc(func(context.Context, ...pubsub.Message) error {
			arrived <- time.Now()
			return nil
		}), outbox.RelayConfig{})
		woken := make(chan struct{}, 1)
		listen(b, s, func() {
			relay.Notify()
			select {
			case woken <- struct{}{}:
			default:
			}
		})
		<-woken
		pgtest.Eventually(b, "the leases", func() bool { return relay.Stats().Buckets == outbox.Buckets })
		ob := outbox.New(s, outbox.Config{})
		measure(b, arrived, func() time.Time { store(b, ob, numbered(1, 1)); return time.Now() })
	})
	b.Run("floor", func(b *testing.B) {
		_, pool, url := newDatabase(b, pgoutbox.Config{})
		conn, err := pgx.Connect(b.Context(), url)
		require.NoError(b, err)
		_, err = conn.Exec(b.Context(), "LISTEN floor")
		require.NoError(b, err)
		ctx, cancel := context.WithCancel(context.Background())
		arrived, done := make(chan time.Time, 1), make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := conn.WaitForNotification(ctx); err != nil {
					return
				}
				arrived <- time.Now()
			}
		}()
		b.Cleanup(func() { cancel(); <-done; _ = conn.Close(context.Background()) })
		measure(b, arrived, func() time.Time {
			_, err := pool.Exec(b.Context(), "SELECT pg_notify('floor', '')")
			require.NoError(b, err)
			return time.Now()
		})
	})
}
