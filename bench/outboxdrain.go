package bench

import (
	"context"
	"database/sql"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

const (
	drained    = 10_000 // messages of one drain
	drainBatch = 1000
)

// perMessage measures work on n messages, which fill puts there first, and reports the time and the allocations of one message. The work has
// a fixed size so that what it takes to start counts alike for all subjects.
func perMessage(b *testing.B, n int, fill, work func()) {
	var took time.Duration
	var allocs uint64
	var before, after runtime.MemStats
	b.StopTimer()
	for range b.N {
		fill()
		runtime.ReadMemStats(&before)
		began := time.Now()
		b.StartTimer()
		work()
		b.StopTimer()
		took += time.Since(began)
		runtime.ReadMemStats(&after)
		allocs += after.Mallocs - before.Mallocs
	}
	messages := float64(b.N) * float64(n)
	b.ReportMetric(float64(took.Nanoseconds())/messages, "ns/op")
	b.ReportMetric(float64(allocs)/messages, "allocs/op")
}

// drain is one relay that publishes all to a publisher that does nothing, from its start to its stop.
func drain(b *testing.B, q outbox.Queue, fill func()) {
	perMessage(b, drained, fill, func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		left := drained
		r := outbox.NewRelay(q, publisherFunc(func(msgs []pubsub.Message) {
			if left -= len(msgs); left <= 0 {
				cancel()
			}
		}), outbox.RelayConfig{Batch: drainBatch})
		must(b, r.Run(ctx))
	})
	left, err := q.Backlog(context.Background())
	must(b, err)
	if left.Pending != 0 {
		b.Errorf("%d messages are left", left.Pending)
	}
}

type publisherFunc func(msgs []pubsub.Message)

func (f publisherFunc) Publish(_ context.Context, msgs ...pubsub.Message) error {
	f(msgs)
	return nil
}

func fillPgx(b *testing.B, ob *outbox.Outbox[pgx.Tx]) func() {
	return func() {
		for range drained / drainBatch {
			must(b, ob.InTx(context.Background(), func(ctx context.Context, tx pgx.Tx) error { return ob.Publish(ctx, tx, events(drainBatch)...) }))
		}
	}
}

func fillSQL(b *testing.B, ob *outbox.Outbox[*sql.Tx]) func() {
	return func() {
		for range drained / drainBatch {
			must(b, ob.InTx(context.Background(), func(ctx context.Context, tx *sql.Tx) error { return ob.Publish(ctx, tx, events(drainBatch)...) }))
		}
	}
}

func drainPgx(b *testing.B) {
	store, ob := newPgOutbox(b, newSchema(b))
	drain(b, store, fillPgx(b, ob))
}

func drainSQL(b *testing.B) {
	store, ob := newSQLOutbox(b, newSchema(b).db, sqloutbox.PostgreSQL())
	drain(b, store, fillSQL(b, ob))
}

// drainByHand deletes batches and reads what it deletes, skipping what others have locked: the floor. What it reads is
// lost when it dies.
func drainByHand(b *testing.B) {
	s := newSchema(b)
	_, ob := newPgOutbox(b, s)
	const text = "DELETE FROM backstay_outbox WHERE seq IN (SELECT seq FROM backstay_outbox ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED) " +
		"RETURNING id, topic, msg_key, header, payload, sent_at"
	perMessage(b, drained, fillPgx(b, ob), func() {
		for left := drained; left > 0; {
			rows, err := s.pool.Query(context.Background(), text, drainBatch)
			must(b, err)
			for rows.Next() {
				var m pubsub.Message
				var header string
				var sent int64
				must(b, rows.Scan(&m.ID, &m.Topic, &m.Key, &header, &m.Payload, &sent))
				left--
			}
			must(b, rows.Err())
		}
	})
}

func liteDrainOurs(b *testing.B) {
	store, ob := newSQLOutbox(b, openSQLite(b), sqloutbox.SQLite())
	drain(b, store, fillSQL(b, ob))
}

func liteDrainByHand(b *testing.B) {
	db := openSQLite(b)
	_, ob := newSQLOutbox(b, db, sqloutbox.SQLite())
	const text = "DELETE FROM backstay_outbox WHERE seq IN (SELECT seq FROM backstay_outbox ORDER BY seq LIMIT ?) " +
		"RETURNING id, topic, msg_key, header, payload, sent_at"
	perMessage(b, drained, fillSQL(b, ob), func() {
		for left := drained; left > 0; {
			rows, err := db.QueryContext(context.Background(), text, drainBatch)
			must(b, err)
			for rows.Next() {
				var m pubsub.Message
				var header string
				var sent int64
				must(b, rows.Scan(&m.ID, &m.Topic, &m.Key, &header, &m.Payload, &sent))
				left--
			}
			must(b, rows.Err())
			must(b, rows.Close())
		}
	})
}

// waking measures from just before a commit to the call of the publisher, one transaction at a time with a pause between, and reports a
// quantile of it as the time of an operation. For the floor, the transaction stores a row and notifies.
func waking(quantile float64, open func(b *testing.B, s *schema, arrived chan<- time.Time) (transact func(ctx context.Context) (committing time.Time, err error))) func(*testing.B) {
	return func(b *testing.B) {
		arrived := make(chan time.Time, 1)
		transact := open(b, newSchema(b), arrived)
		pause := time.NewTicker(5 * time.Millisecond)
		defer pause.Stop()
		all := make([]time.Duration, b.N)
		b.ResetTimer()
		for i := range all {
			<-pause.C
			committing, err := transact(context.Background())
			must(b, err)
			all[i] = (<-arrived).Sub(committing)
		}
		b.StopTimer()
		b.ReportMetric(quantileOf(all, quantile), "ns/op")
	}
}

func notifyRaw(b *testing.B, s *schema, arrived chan<- time.Time) func(context.Context) (time.Time, error) {
	newPgOutbox(b, s)
	ctx, cancel := context.WithCancel(context.Background())
	listener, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	must(b, err)
	_, err = listener.Exec(ctx, "LISTEN floor")
	must(b, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := listener.WaitForNotification(ctx); err != nil {
				return
			}
			arrived <- time.Now()
		}
	}()
	b.Cleanup(func() { cancel(); <-ended; _ = listener.Close(context.Background()) })
	m := events(1)[0]
	return func(ctx context.Context) (committing time.Time, err error) {
		err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "WITH stored AS ("+insertEvents+"VALUES ($1, $2, $3, $4, $5, $6, $7)) SELECT pg_notify('floor', '')",
				1, handID, m.Topic, m.Key, "", m.Payload, 1)
			committing = time.Now()
			return err
		})
		return committing, err
	}
}

func wakeRelay(b *testing.B, s *schema, arrived chan<- time.Time) func(context.Context) (time.Time, error) {
	store, ob := newPgOutbox(b, s)
	first := make(chan struct{})
	var seen bool
	relay := outbox.NewRelay(store, publisherFunc(func([]pubsub.Message) {
		if !seen {
			seen = true
			close(first)
			return
		}
		arrived <- time.Now()
	}), outbox.RelayConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	ended, woken := make(chan error, 2), make(chan struct{}, 1)
	go func() { ended <- relay.Run(ctx) }()
	go func() {
		ended <- store.Listen(ctx, func() {
			relay.Notify()
			select {
			case woken <- struct{}{}:
			default:
			}
		})
	}()
	b.Cleanup(func() { cancel(); check(b, <-ended); check(b, <-ended) })
	<-woken // it listens
	transact := func(ctx context.Context) (committing time.Time, err error) {
		err = ob.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			err := ob.Publish(ctx, tx, events(1)...)
			committing = time.Now()
			return err
		})
		return committing, err
	}
	_, err := transact(ctx) // the relay has its leases when this has come
	must(b, err)
	<-first
	return transact
}
