// Package pglisten waits for notifications of PostgreSQL on a connection of its own.
package pglisten

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	relistenMin = 20 * time.Millisecond
	relistenMax = 5 * time.Second
	pingTimeout = 5 * time.Second
)

// Listener says what to listen for. All fields are required.
type Listener struct {
	// Pool says how to connect; none of its connections is used.
	Pool *pgxpool.Pool
	// Query is the LISTEN statement.
	Query string
	// Ping is how long it waits in silence before it asks whether its connection still stands.
	Ping time.Duration
	// OnError is told why a connection failed, or could not be made.
	OnError func(error)
}

// Run calls wake after each notification and each new connection, since something may have been missed, until ctx is done. It makes
// a new connection when one fails.
func (l Listener) Run(ctx context.Context, wake func()) {
	pause := relistenMin
	for ctx.Err() == nil {
		began := time.Now()
		err := l.listen(ctx, wake)
		if ctx.Err() != nil {
			break
		}
		l.OnError(err)
		if time.Since(began) > relistenMax {
			pause = relistenMin
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, relistenMax)
	}
}

// listen serves one connection until it fails.
func (l Listener) listen(ctx context.Context, wake func()) error {
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if err := ask(ctx, conn, l.Query); err != nil {
		return err
	}
	wake()
	for {
		heard, err := l.hear(ctx, conn)
		switch {
		case heard:
			wake()
		case ctx.Err() != nil || conn.IsClosed():
			return err
		default: // silence: is anybody there?
			if err := ask(ctx, conn, "SELECT 1"); err != nil {
				return err
			}
		}
	}
}

// connect makes a connection as the pool would.
func (l Listener) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg := l.Pool.Config()
	if cfg.BeforeConnect != nil {
		if err := cfg.BeforeConnect(ctx, cfg.ConnConfig); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return pgx.ConnectConfig(ctx, cfg.ConnConfig)
}

// hear waits for one notification.
func (l Listener) hear(ctx context.Context, conn *pgx.Conn) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Ping)
	defer cancel()
	_, err := conn.WaitForNotification(ctx)
	return err == nil, err
}

func ask(ctx context.Context, conn *pgx.Conn, query string) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	_, err := conn.Exec(ctx, query)
	return err
}
