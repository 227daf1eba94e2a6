package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/console"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

const (
	consolePath = "/backstay/"
	unlucky     = "i-1" // the key of the message that is refused
)

// service has a breaker, an outbox with one message that the broker refuses at first, and a saga that gets stuck.
type service struct {
	cfg       settings
	dir       string
	db        *sql.DB
	console   *console.Console
	bank      *breaker.Breaker
	outbox    *outbox.Outbox[*sql.Tx]
	relay     *relayOf
	parked    chan struct{} // closed when a message is parked
	published chan string   // keys
	trips     *saga.Definition[trip]
	runner    *saga.Runner
	stop      context.CancelFunc
	running   sync.WaitGroup
}

// open starts the service: its first message is parked and its first saga is stuck when it returns.
func open(ctx context.Context, cfg settings) (s *service, err error) {
	s = &service{cfg: cfg, parked: make(chan struct{}), published: make(chan string, 10)}
	ctx, s.stop = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.console = console.New(console.Config{Name: "travel"}, s.options()...)
	s.bank = breaker.New(breaker.Config{Name: "bank"}, breaker.OnStateChange(func(t breaker.Transition) {
		s.console.Record(console.Event{Level: console.Degraded, Kind: "breaker", Name: t.Name, Text: t.To.String()})
	}))
	if err := s.openOutbox(ctx); err != nil {
		return s, err
	}
	if err := s.openSagas(); err != nil {
		return s, err
	}
	s.console.Add(s.bank, s.relay, s.runner)
	s.running.Go(func() { _ = s.relay.Run(ctx) })
	s.running.Go(func() { _ = s.runner.Run(ctx) })
	return s, s.getIntoTrouble(ctx)
}

// options is where the flag decides: without WithActions there is nothing to refuse.
func (s *service) options() []console.Option {
	if !s.cfg.actions {
		return nil
	}
	return []console.Option{s.actions()}
}

func (s *service) pages() http.Handler {
	mux := http.NewServeMux()
	var page http.Handler = s.console
	if s.cfg.actions {
		page = s.signIn(page)
	}
	mux.Handle(consolePath, page)
	mux.Handle("/livez", s.console.Liveness())
	mux.Handle("/readyz", s.console.Readiness(console.Check{Name: "database", Probe: s.db.PingContext}))
	return mux
}

func (s *service) openOutbox(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "console-"); err != nil {
		return err
	}
	if s.db, err = sqlite.Open(filepath.Join(s.dir, "travel.db"), sqlite.Config{}); err != nil {
		return err
	}
	store, err := sqloutbox.New(s.db, sqloutbox.SQLite(), sqloutbox.Config{})
	if err != nil {
		return err
	}
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	broker := &moody{published: s.published}
	relay := outbox.NewRelay(store, broker, outbox.RelayConfig{Name: "invoices", Lease: 2 * time.Second},
		outbox.OnFailure(func(f outbox.Failure) {
			if f.Parked && broker.mended.CompareAndSwap(false, true) {
				close(s.parked)
			}
		}))
	s.relay = &relayOf{relay, store}
	s.outbox = outbox.New(store, outbox.Config{Name: "invoices"}, outbox.WithRelay(relay))
	return nil
}

// moody is a broker that refuses one message until it has been parked, and takes all others.
type moody struct {
	mended    atomic.Bool
	published chan string
}

type refusal struct{}

func (refusal) Error() string   { return "no invoices before noon" }
func (refusal) Permanent() bool { return true }

// Publish implements pubsub.Publisher.
func (b *moody) Publish(_ context.Context, msgs ...pubsub.Message) error {
	refused := pubsub.PublishError{Total: len(msgs)}
	for i, m := range msgs {
		if m.Key == unlucky && !b.mended.Load() {
			refused.Failed = append(refused.Failed, pubsub.Failure{Index: i, ID: m.ID, Err: refusal{}})
			continue
		}
		b.published <- m.Key
	}
	if len(refused.Failed) > 0 {
		return &refused
	}
	return nil
}

type trip struct {
	Flight string `json:"flight"`
}

// openSagas defines a trip whose hotel is full, and whose flight cannot be given back at the first try.
func (s *service) openSagas() (err error) {
	var asked atomic.Bool
	s.trips, err = saga.Define("trip", 1,
		saga.Step[trip]{
			Name: "flight", Do: func(_ context.Context, t *trip) error { t.Flight = "LH 400"; return nil },
			Undo: func(context.Context, *trip) error {
				if asked.CompareAndSwap(false, true) {
					return saga.Permanent(errors.New("the desk is closed"))
				}
				return nil
			},
		},
		saga.Step[trip]{Name: "hotel", Do: func(context.Context, *trip) error { return saga.Permanent(errors.New("the hotel is full")) }},
	)
	if err != nil {
		return err
	}
	s.runner, err = saga.NewRunner(memsaga.New(), saga.Config{Name: "trips"}, s.trips, saga.OnStuck(func(in saga.Instance) {
		s.console.Record(console.Event{Level: console.Failed, Kind: "saga", Name: "trips", Text: fmt.Sprintf("%s is stuck: %s", in.ID, in.Error)})
	}))
	return err
}

// getIntoTrouble parks a message and gets a saga stuck.
func (s *service) getIntoTrouble(ctx context.Context) error {
	err := s.outbox.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		return s.outbox.Publish(ctx, tx, pubsub.Message{Topic: "invoices", Key: unlucky}, pubsub.Message{Topic: "invoices", Key: "i-2"})
	})
	if err != nil {
		return err
	}
	if err := saga.Start(ctx, s.runner, s.trips, "t-1", trip{}); err != nil {
		return err
	}
	if _, err := saga.Wait(ctx, s.runner, s.trips, "t-1"); !errors.Is(err, saga.ErrStuck) {
		return fmt.Errorf("the saga is not stuck: %w", err)
	}
	select {
	case <-s.parked:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// keepBusy calls the bank ten times a second, so that there is something to see.
func (s *service) keepBusy(ctx context.Context) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			_ = s.bank.Do(ctx, func(context.Context) error { return nil })
		case <-ctx.Done():
			return
		}
	}
}

func (s *service) close() (err error) {
	s.console.Close()
	s.stop()
	s.running.Wait()
	if s.db != nil {
		err = s.db.Close()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
