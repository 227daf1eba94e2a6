package bench

import (
	"context"
	"database/sql"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// What a peer drains at once: fewer messages, since it takes longer. A peer that does not end has the benchmark fail.
const (
	drainedByPeer = 2000
	peerPatience  = 2 * time.Minute
)

// riverJob is an event as a job, its payload as text, since the arguments of a job are JSON.
type riverJob struct {
	Topic, Key, Payload string
}

func (riverJob) Kind() string { return "event" }

type riverWorker struct {
	river.WorkerDefaults[riverJob]
	done func()
}

func (w *riverWorker) Work(context.Context, *river.Job[riverJob]) error {
	w.done()
	return nil
}

var silent = slog.New(slog.DiscardHandler)

// newRiver makes the tables and a client; a worker makes it one that works, with what its documentation sets as an example.
func newRiver(b *testing.B, s *schema, worker *riverWorker) *river.Client[pgx.Tx] {
	b.Helper()
	migrator, err := rivermigrate.New(riverpgxv5.New(s.pool), &rivermigrate.Config{Logger: silent})
	must(b, err)
	_, err = migrator.Migrate(context.Background(), rivermigrate.DirectionUp, nil)
	must(b, err)
	cfg := &river.Config{Logger: silent, SkipUnknownJobCheck: true}
	if worker != nil {
		cfg.Workers = river.NewWorkers()
		must(b, river.AddWorkerSafely(cfg.Workers, worker))
		cfg.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 100}}
	}
	client, err := river.NewClient(riverpgxv5.New(s.pool), cfg)
	must(b, err)
	return client
}

func riverJobs(n int) []river.InsertManyParams {
	params := make([]river.InsertManyParams, n)
	for i, m := range events(n) {
		params[i].Args = riverJob{m.Topic, m.Key, riverPayload}
	}
	return params
}

var riverPayload = strings.Repeat("x", 200)

// jsonBody is a JSON value of 200 bytes.
func jsonBody() []byte {
	text := make([]byte, 200)
	for i := range text {
		text[i] = 'x'
	}
	text[0], text[len(text)-1] = '"', '"'
	return text
}

func storeRiver(b *testing.B, s *schema, n int) func(context.Context) error {
	client := newRiver(b, s, nil)
	params := riverJobs(n)
	return s.inPgx(func(ctx context.Context, tx pgx.Tx) error {
		if n == 1 {
			_, err := client.InsertTx(ctx, tx, params[0].Args, nil)
			return err
		}
		_, err := client.InsertManyFastTx(ctx, tx, params)
		return err
	})
}

// drainRiver works jobs that do nothing, from the client's start to its stop, when all are recorded as completed.
func drainRiver(b *testing.B) {
	s := newSchema(b)
	var left atomic.Int64
	done := make(chan struct{}, 1)
	worker := &riverWorker{done: func() {
		if left.Add(-1) == 0 {
			done <- struct{}{}
		}
	}}
	client := newRiver(b, s, worker)
	fill := func() {
		left.Store(drainedByPeer)
		must(b, pgx.BeginFunc(context.Background(), s.pool, func(tx pgx.Tx) error {
			_, err := client.InsertManyFastTx(context.Background(), tx, riverJobs(drainedByPeer))
			return err
		}))
	}
	perMessage(b, drainedByPeer, fill, func() {
		client := newRiver(b, s, worker) // one that was stopped does not start again
		must(b, client.Start(context.Background()))
		wait(b, done)
		must(b, client.Stop(context.Background()))
	})
	var pending int
	must(b, s.pool.QueryRow(context.Background(), "SELECT count(*) FROM river_job WHERE state <> 'completed'").Scan(&pending))
	if pending != 0 {
		b.Errorf("%d jobs are not completed", pending)
	}
}

func wait(b *testing.B, done <-chan struct{}) {
	b.Helper()
	select {
	case <-done:
	case <-time.After(peerPatience):
		b.Fatalf("not within %v", peerPatience)
	}
}

const forwarded = "forwarded"

// watermillEvents are enveloped as the forwarder wants it, by the publisher that wraps the given one.
func watermillEvents(n int) []*message.Message {
	all := make([]*message.Message, n)
	for i, m := range events(n) {
		all[i] = message.NewMessage(watermill.NewUUID(), jsonBody())
		all[i].Metadata.Set("key", m.Key)
	}
	return all
}

// watermillInto is the forwarder's publisher into a transaction, made for each as the documentation says.
func watermillInto(tx *sql.Tx) (message.Publisher, error) {
	p, err := wmsql.NewPublisher(tx, wmsql.PublisherConfig{SchemaAdapter: wmsql.DefaultPostgreSQLSchema{}}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	return forwarder.NewPublisher(p, forwarder.PublisherConfig{ForwarderTopic: forwarded}), nil
}

// watermillSubscriber makes the tables and reads them as quickly as it is made for.
func watermillSubscriber(b *testing.B, s *schema) message.Subscriber {
	b.Helper()
	sub, err := wmsql.NewSubscriber(s.db, wmsql.SubscriberConfig{
		SchemaAdapter: wmsql.DefaultPostgreSQLSchema{}, OffsetsAdapter: wmsql.DefaultPostgreSQLOffsetsAdapter{},
		InitializeSchema: true, PollInterval: 5 * time.Millisecond,
	}, watermill.NopLogger{})
	must(b, err)
	must(b, sub.SubscribeInitialize(forwarded))
	return sub
}

func storeWatermill(b *testing.B, s *schema, n int) func(context.Context) error {
	check(b, watermillSubscriber(b, s).Close())
	return s.inSQL(func(_ context.Context, tx *sql.Tx) error { return putWatermill(tx, n) })
}

func putWatermill(tx *sql.Tx, n int) error {
	p, err := watermillInto(tx)
	if err != nil {
		return err
	}
	return p.Publish("orders.placed", watermillEvents(n)...)
}

// drainForwarder forwards to a publisher that does nothing.
func drainForwarder(b *testing.B) {
	s := newSchema(b)
	check(b, watermillSubscriber(b, s).Close())
	fill := func() {
		for range drainedByPeer / drainBatch {
			tx, err := s.db.BeginTx(context.Background(), nil)
			must(b, err)
			must(b, putWatermill(tx, drainBatch))
			must(b, tx.Commit())
		}
	}
	perMessage(b, drainedByPeer, fill, func() {
		out := &countdownPublisher{left: drainedByPeer, done: make(chan struct{})}
		f, err := forwarder.NewForwarder(watermillSubscriber(b, s), out, watermill.NopLogger{}, forwarder.Config{ForwarderTopic: forwarded})
		must(b, err)
		ended := make(chan error, 1)
		go func() { ended <- f.Run(context.Background()) }()
		wait(b, out.done)
		must(b, f.Close())
		must(b, <-ended)
	})
}

// countdownPublisher is watermill's idea of a publisher.
type countdownPublisher struct {
	left int
	done chan struct{}
}

func (p *countdownPublisher) Publish(_ string, messages ...*message.Message) error {
	if p.left -= len(messages); p.left == 0 {
		close(p.done)
	}
	return nil
}

func (p *countdownPublisher) Close() error { return nil }
