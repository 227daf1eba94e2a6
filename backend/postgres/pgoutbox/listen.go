package pgoutbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	relistenMin = 20 * time.Millisecond
	relistenMax = 5 * time.Second
	pingTimeout = 5 * time.Second
)

// Listen calls wake, such as Relay.Notify, whenever a transaction that stored messages has committed, until ctx is done; then it
// returns nil. It has a connection of its own, outside the pool, asks every Config.ListenPing whether it still stands, and makes a
// new one when not; wake is called after each new connection, since something may have been missed. Trouble goes to the
// hook OnListenError. wake must not block.
func (s *Store) Listen(ctx context.Context, wake func()) error {
	pause := relistenMin
	for ctx.Err() == nil {
		began := time.Now()
		err := s.listen(ctx, wake)
		if ctx.Err() != nil {
			break
		}
		s.onError(fmt.Errorf("pgoutbox: listen: %w", err))
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
	return nil
}

// listen serves one connection until it fails.
func (s *Store) listen(ctx context.Context, wake func()) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if err := ask(ctx, conn, s.text.listen); err != nil {
		return err
	}
	wake()
	for {
		heard, err := s.hear(ctx, conn)
		switch {
		case heard:
			wake()
		case ctx.Err() != nil || conn.IsClosed():
			return err
		default: // silence: is anybody there?
			if err := ask(ctx, conn, s.text.alive); err != nil {
				return err
			}
		}
	}
}

// connect makes a connection as the pool would.
func (s *Store) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg := s.pool.Config()
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
func (s *Store) hear(ctx context.Context, conn *pgx.Conn) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.ListenPing)
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
