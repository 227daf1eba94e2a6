package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

// open opens the database and tells its dialect. In PostgreSQL everything happens in a schema that is dropped afterwards.
func open(ctx context.Context, dsn, dir string) (*sql.DB, sqloutbox.Dialect, func() error, error) {
	if dsn == "" {
		db, err := sqlite.Open(filepath.Join(dir, "shop.db"), sqlite.Config{})
		return db, sqloutbox.SQLite(), func() error { return db.Close() }, err
	}
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, sqloutbox.Dialect{}, nil, err
	}
	schema := fmt.Sprintf("example_outbox_%d", os.Getpid())
	cfg.RuntimeParams["search_path"] = schema
	db := stdlib.OpenDB(*cfg)
	_, err = db.ExecContext(ctx, "CREATE SCHEMA "+schema)
	return db, sqloutbox.PostgreSQL(), func() error {
		_, err := db.ExecContext(context.WithoutCancel(ctx), "DROP SCHEMA "+schema+" CASCADE")
		return errors.Join(err, db.Close())
	}, err
}

// broker delivers everything twice, as happens when a relay dies before it has deleted a row, and refuses mugs for a while.
type broker struct {
	*pubsub.Bus
	mended atomic.Bool
}

// noMugs is an answer that trying again does not change.
type noMugs struct{}

func (noMugs) Error() string   { return "no mugs before noon" }
func (noMugs) Permanent() bool { return true }

func (b *broker) Publish(ctx context.Context, msgs ...pubsub.Message) error {
	refused := pubsub.PublishError{Total: len(msgs)}
	for i, m := range msgs {
		err := error(noMugs{})
		if m.Key != "mug" || b.mended.Load() {
			err = errors.Join(b.Bus.Publish(ctx, m), b.Bus.Publish(ctx, m))
		}
		if err != nil {
			refused.Failed = append(refused.Failed, pubsub.Failure{Index: i, ID: m.ID, Err: err})
		}
	}
	if len(refused.Failed) > 0 {
		return &refused
	}
	return nil
}

// A story prints what happens.
type story struct {
	mu      sync.Mutex // guards out
	out     io.Writer
	db      *sql.DB
	store   *sqloutbox.Store
	broker  *broker
	handled chan string // the orders that billing was asked for, duplicates too
}

func (s *story) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format+"\n", args...)
}

func outcome(err error) any {
	if err != nil {
		return err
	}
	return "placed"
}

// deliveries waits for n of them.
func (s *story) deliveries(ctx context.Context, n int) (err error) {
	for ; n > 0 && err == nil; n-- {
		_, err = wait(ctx, s.handled)
	}
	return err
}

// wait takes the next value.
func wait[T any](ctx context.Context, ch <-chan T) (v T, err error) {
	select {
	case v = <-ch:
		return v, nil
	case <-ctx.Done():
		return v, ctx.Err()
	}
}
