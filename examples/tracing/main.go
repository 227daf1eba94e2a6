// Tracing follows one order through a service: from the HTTP request over a transaction, an outbox, a message and a saga with
// branches to another service's HTTP server. All of it is one trace.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/backstay-go/backstay/backend/otel/oteltrace"
	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run places an order, waits for its saga, and prints the spans as a tree.
func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	spans := tracetest.NewSpanRecorder() // a service has an exporter here
	provider := trace.NewTracerProvider(trace.WithSpanProcessor(spans))
	s := &service{tracer: oteltrace.New(provider), bus: pubsub.New(mempubsub.New(mempubsub.Config{})), started: make(chan string, 1)}
	s.client = &http.Client{Transport: s.tracer.Transport(http.DefaultTransport)}
	err = errors.Join(s.serve(ctx), s.bus.Close(), provider.Shutdown(ctx))
	s.client.CloseIdleConnections()
	if err != nil {
		return err
	}
	return tree(out, spans.Ended())
}

// service is what an order passes through.
type service struct {
	tracer   *oteltrace.Tracer
	client   *http.Client // carries the trace to other services
	supplier string       // another service's URL
	db       *sql.DB
	outbox   *outbox.Outbox[*sql.Tx]
	bus      *pubsub.Bus
	orders   *saga.Definition[order]
	runner   *saga.Runner
	started  chan string // IDs of sagas
}

// serve opens everything, sends an order through it, and closes it again, by when every span has ended.
func (s *service) serve(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "tracing-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	relay, err := s.open(ctx, filepath.Join(dir, "orders.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.db.Close()) }()
	supplier := httptest.NewServer(s.tracer.Middleware(supplies()))
	defer supplier.Close()
	s.supplier = supplier.URL
	consumer, err := s.bus.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "fulfilment"})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 3)
	go func() { ended <- relay.Run(ctx) }()
	go func() { ended <- consumer.Run(ctx, s.tracer.Handler("mem", "fulfilment", s.fulfil)) }()
	go func() { ended <- s.runner.Run(ctx) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended, <-ended, <-ended)
	}()
	front := httptest.NewServer(s.tracer.Middleware(s.pages()))
	defer front.Close() // waits for its handlers, and so for their spans
	return s.order(ctx, front.URL)
}

func (s *service) open(ctx context.Context, file string) (relay *outbox.Relay, err error) {
	if s.db, err = sqlite.Open(file, sqlite.Config{}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.db.Close())
		}
	}()
	store, err := sqloutbox.New(s.db, sqloutbox.SQLite(), sqloutbox.Config{})
	if err != nil {
		return nil, err
	}
	if err = store.Migrate(ctx); err != nil {
		return nil, err
	}
	if _, err = s.db.ExecContext(ctx, "CREATE TABLE orders (id VARCHAR(20) PRIMARY KEY)"); err != nil {
		return nil, err
	}
	// The relay publishes with the trace that the transaction put into the message.
	relay = outbox.NewRelay(store, s.tracer.Publisher("mem", s.bus), outbox.RelayConfig{})
	s.outbox = outbox.New(store, outbox.Config{}, outbox.WithRelay(relay))
	s.orders = s.define()
	s.runner, err = saga.NewRunner(memsaga.New(), saga.Config{}, s.orders)
	return relay, err
}

// order is what a customer does: a request with a trace of the customer's own.
func (s *service) order(ctx context.Context, url string) error {
	ask := oteltrace.Func(s.tracer, "customer", func(ctx context.Context, id string) (struct{}, error) {
		return struct{}{}, s.post(ctx, url+"/orders/"+id)
	})
	if _, err := ask(ctx, "o-1"); err != nil {
		return err
	}
	select {
	case id := <-s.started:
		_, err := saga.Wait(ctx, s.runner, s.orders, id)
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
