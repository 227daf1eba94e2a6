package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"

	"github.com/backstay-go/backstay/backend/otel/oteltrace"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/saga"
)

// pages is the public API. The order and the message about it are one transaction.
func (s *service) pages() http.Handler {
	insert := oteltrace.Query(s.tracer, oteltrace.Database{System: "sqlite", Operation: "INSERT", Collection: "orders"},
		func(ctx context.Context, in placing) (sql.Result, error) {
			return in.tx.ExecContext(ctx, "INSERT INTO orders VALUES (?)", in.id)
		})
	publish := oteltrace.Outbox(s.tracer, s.outbox.Publish)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		err := s.outbox.InTx(r.Context(), func(ctx context.Context, tx *sql.Tx) error {
			if _, err := insert(ctx, placing{tx, id}); err != nil {
				return err
			}
			return publish(ctx, tx, pubsub.Message{Topic: "orders", Key: id})
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return mux
}

type placing struct {
	tx *sql.Tx
	id string
}

// order is the state of a saga. The trace is part of it, since steps run on any node and long after.
type order struct {
	Trace  oteltrace.Carried `json:"trace"`
	Parcel string            `json:"parcel"`
	Bill   string            `json:"bill"`
}

// fulfil handles the message by starting a saga. The ID makes that idempotent.
func (s *service) fulfil(ctx context.Context, m pubsub.Message) error {
	if err := saga.Start(ctx, s.runner, s.orders, m.Key, order{Trace: oteltrace.Carry(ctx)}); err != nil {
		return err
	}
	s.started <- m.Key
	return nil
}

func (s *service) define() *saga.Definition[order] {
	trace := func(o *order) oteltrace.Carried { return o.Trace }
	return saga.MustDefine("order", 1,
		saga.Parallel("prepare",
			oteltrace.Branch(s.tracer, trace, saga.Branch[order, string]{
				Name:  "pack",
				Do:    func(ctx context.Context, _ order) (string, error) { return "a box", s.post(ctx, s.supplier+"/parcels") },
				Merge: func(o *order, parcel string) { o.Parcel = parcel },
			}),
			oteltrace.Branch(s.tracer, trace, saga.Branch[order, string]{
				Name:  "bill",
				Do:    func(context.Context, order) (string, error) { return "£2.55", nil },
				Merge: func(o *order, bill string) { o.Bill = bill },
			}),
		),
		oteltrace.Step(s.tracer, trace, saga.Step[order]{
			Name: "ship",
			Do:   func(ctx context.Context, _ *order) error { return s.post(ctx, s.supplier+"/shipments") },
		}),
	)
}

// supplies is another service. It shares the tracer here only because it shares the process: the trace comes by HTTP.
func supplies() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /parcels", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /shipments", func(http.ResponseWriter, *http.Request) {})
	return mux
}

func (s *service) post(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	_ = resp.Body.Close()
	return err
}
