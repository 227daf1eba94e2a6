package bench

import (
	"context"
	"database/sql"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

const (
	storeOneCase   = "PostgreSQL, transaction with 1 message"
	storeManyCase  = "PostgreSQL, transaction with 100 messages"
	drainCase      = "PostgreSQL, drain, per message"
	wakeMedianCase = "PostgreSQL, from commit to publisher at low load, median"
	wakeTailCase   = "PostgreSQL, from commit to publisher at low load, p99"
	liteOneCase    = "SQLite, transaction with 1 message"
	liteManyCase   = "SQLite, transaction with 100 messages"
	liteDrainCase  = "SQLite, drain, per message"

	oursPgx = ours + ", pgx"
	oursSQL = ours + ", database/sql"

	riverName     = "river 0.51.1"
	watermillSQL  = "watermill-sql 3.1.0"
	forwarderName = watermillSQL + ", forwarder"

	manyMessages = 100
)

func outboxes() []Case {
	l := list{area: Outbox}
	for _, work := range []struct {
		name string
		n    int
	}{{storeOneCase, 1}, {storeManyCase, manyMessages}} {
		l.onPostgres(work.name, Floor, storing(work.n, storeByHand))
		l.onPostgres(work.name, oursPgx, storing(work.n, storePgx))
		l.onPostgres(work.name, oursSQL, storing(work.n, storeSQL))
		l.onPostgres(work.name, riverName, storing(work.n, storeRiver))
		l.onPostgres(work.name, watermillSQL, storing(work.n, storeWatermill))
	}
	l.onPostgres(drainCase, Floor, drainByHand)
	l.onPostgres(drainCase, oursPgx, drainPgx)
	l.onPostgres(drainCase, oursSQL, drainSQL)
	l.onPostgres(drainCase, riverName+", 100 workers", drainRiver)
	l.onPostgres(drainCase, forwarderName, drainForwarder)
	for _, work := range []struct {
		name     string
		quantile float64
	}{{wakeMedianCase, 0.5}, {wakeTailCase, 0.99}} {
		l.onPostgres(work.name, Floor, waking(work.quantile, notifyRaw))
		l.onPostgres(work.name, oursPgx, waking(work.quantile, wakeRelay))
	}
	l.append(liteOneCase, Floor, liteStoring(1, liteByHand))
	l.append(liteOneCase, ours, liteStoring(1, liteOurs))
	l.append(liteManyCase, Floor, liteStoring(manyMessages, liteByHand))
	l.append(liteManyCase, ours, liteStoring(manyMessages, liteOurs))
	l.append(liteDrainCase, Floor, liteDrainByHand)
	l.append(liteDrainCase, ours, liteDrainOurs)
	return l.cases
}

// onPostgres puts down a case that needs the server.
func (l *list) onPostgres(name, subject string, run func(*testing.B)) {
	l.cases = append(l.cases, Case{l.area, name, subject, run, postgresThere})
}

func outboxTargets() []Target {
	return []Target{
		{storeOneCase, oursPgx, Floor, 1 / 0.9, false, 0, anyNumber},
		{storeManyCase, oursPgx, Floor, 1 / 0.85, false, 0, 20 * manyMessages},
		{drainCase, oursPgx, Floor, 1 / 0.9, false, 0, 20},
		{drainCase, oursPgx, forwarderName, 0.25, false, 0, 20},
		{wakeTailCase, oursPgx, Floor, 4, false, 0, anyNumber},
		{liteOneCase, ours, Floor, 1 / 0.85, false, 0, anyNumber},
		{liteManyCase, ours, Floor, 1 / 0.85, false, 0, 20 * manyMessages},
		{liteDrainCase, ours, Floor, 2, false, 0, 20},
	}
}

// events are n messages, as a service would store them. IDs are filled in by the library, and by hand.
func events(n int) []pubsub.Message {
	payload := make([]byte, 200)
	all := make([]pubsub.Message, n)
	for i := range all {
		all[i] = pubsub.Message{Topic: "orders.placed", Key: "order" + strconv.Itoa(i), Payload: payload}
	}
	return all
}

const handID = "0123456789abcdef0123456789abcdef"

// storing measures transactions that change a row of the service's and store n messages.
func storing(n int, open func(b *testing.B, s *schema, n int) (transaction func(ctx context.Context) error)) func(*testing.B) {
	return func(b *testing.B) {
		s := newSchema(b)
		s.exec(b, "CREATE TABLE orders (id BIGINT PRIMARY KEY, state TEXT); INSERT INTO orders VALUES (1, '')")
		transaction := open(b, s, n)
		ctx := context.Background()
		b.ReportAllocs()
		for b.Loop() {
			must(b, transaction(ctx))
		}
	}
}

const change = "UPDATE orders SET state = $1 WHERE id = 1"

// inPgx is a transaction of pgx.
func (s *schema) inPgx(store func(ctx context.Context, tx pgx.Tx) error) func(context.Context) error {
	return func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, change, "paid"); err != nil {
				return err
			}
			return store(ctx, tx)
		})
	}
}

// inSQL is a transaction of database/sql.
func (s *schema) inSQL(store func(ctx context.Context, tx *sql.Tx) error) func(context.Context) error {
	return func(ctx context.Context) error {
		tx, err := s.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		if _, err := tx.ExecContext(ctx, change, "paid"); err != nil {
			return err
		}
		if err := store(ctx, tx); err != nil {
			return err
		}
		return tx.Commit()
	}
}

const insertEvents = "INSERT INTO backstay_outbox (lane, id, topic, msg_key, header, payload, sent_at) "

// storeByHand stores the same rows in the same table: the floor.
func storeByHand(b *testing.B, s *schema, n int) func(context.Context) error {
	newPgOutbox(b, s)
	msgs := events(n)
	if n == 1 {
		m := msgs[0]
		return s.inPgx(func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, insertEvents+"VALUES ($1, $2, $3, $4, $5, $6, $7)", 1, handID, m.Topic, m.Key, "", m.Payload, 1)
			return err
		})
	}
	return s.inPgx(func(ctx context.Context, tx pgx.Tx) error {
		lanes, ids, topics, keys, headers, payloads := make([]int64, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([][]byte, n)
		for i, m := range msgs {
			ids[i], topics[i], keys[i], payloads[i] = handID, m.Topic, m.Key, m.Payload
		}
		_, err := tx.Exec(ctx, insertEvents+"SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bigint[])",
			lanes, ids, topics, keys, headers, payloads, lanes)
		return err
	})
}

func newPgOutbox(b *testing.B, s *schema) (*pgoutbox.Store, *outbox.Outbox[pgx.Tx]) {
	b.Helper()
	store, err := pgoutbox.New(s.pool, pgoutbox.Config{})
	must(b, err)
	must(b, store.Migrate(context.Background()))
	return store, outbox.New(store, outbox.Config{})
}

func newSQLOutbox(b *testing.B, db *sql.DB, d sqloutbox.Dialect) (*sqloutbox.Store, *outbox.Outbox[*sql.Tx]) {
	b.Helper()
	store, err := sqloutbox.New(db, d, sqloutbox.Config{})
	must(b, err)
	must(b, store.Migrate(context.Background()))
	return store, outbox.New(store, outbox.Config{})
}

func storePgx(b *testing.B, s *schema, n int) func(context.Context) error {
	_, ob := newPgOutbox(b, s)
	msgs := events(n)
	return s.inPgx(func(ctx context.Context, tx pgx.Tx) error { return ob.Publish(ctx, tx, msgs...) })
}

func storeSQL(b *testing.B, s *schema, n int) func(context.Context) error {
	_, ob := newSQLOutbox(b, s.db, sqloutbox.PostgreSQL())
	msgs := events(n)
	return s.inSQL(func(ctx context.Context, tx *sql.Tx) error { return ob.Publish(ctx, tx, msgs...) })
}

func openDB(b *testing.B, cfg *pgx.ConnConfig) *sql.DB {
	b.Helper()
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(20) // the server is shared
	db.SetMaxIdleConns(20)
	b.Cleanup(func() { check(b, db.Close()) })
	return db
}

// openSQLite opens a new file, durable as by default.
func openSQLite(b *testing.B) *sql.DB {
	b.Helper()
	db, err := sqlite.Open(filepath.Join(b.TempDir(), "bench.db"), sqlite.Config{})
	must(b, err)
	b.Cleanup(func() { check(b, db.Close()) })
	return db
}

// liteStoring measures transactions that store n messages.
func liteStoring(n int, open func(db *sql.DB, ob *outbox.Outbox[*sql.Tx], msgs []pubsub.Message) func(context.Context, *sql.Tx) error) func(*testing.B) {
	return func(b *testing.B) {
		db := openSQLite(b)
		store, ob := newSQLOutbox(b, db, sqloutbox.SQLite())
		fn := open(db, ob, events(n))
		ctx := context.Background()
		b.ReportAllocs()
		for b.Loop() {
			must(b, store.InTx(ctx, fn))
		}
	}
}

func liteOurs(_ *sql.DB, ob *outbox.Outbox[*sql.Tx], msgs []pubsub.Message) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error { return ob.Publish(ctx, tx, msgs...) }
}

// liteByHand is one statement with all rows, as ours is.
func liteByHand(_ *sql.DB, _ *outbox.Outbox[*sql.Tx], msgs []pubsub.Message) func(context.Context, *sql.Tx) error {
	const insert = "INSERT INTO backstay_outbox (lane, id, topic, msg_key, header, payload, sent_at, stored_at) VALUES "
	text := insert + strings.TrimSuffix(strings.Repeat("(?, ?, ?, ?, ?, ?, ?, 1), ", len(msgs)), ", ")
	return func(ctx context.Context, tx *sql.Tx) error {
		args := make([]any, 0, 7*len(msgs))
		for _, m := range msgs {
			args = append(args, 1, handID, m.Topic, m.Key, "", m.Payload, 1)
		}
		_, err := tx.ExecContext(ctx, text, args...)
		return err
	}
}
