package test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

// paying is a service as docs/outbox.md shows it, up to the relay.
type paying struct {
	db    *sql.DB
	store *sqloutbox.Store
	ob    *outbox.Outbox[*sql.Tx]
	relay *outbox.Relay
}

func newPaying(ctx context.Context, db *sql.DB, bus pubsub.Publisher) (*paying, error) {
	// docs:
	store, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{})
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx); err != nil { // or Schema by your own tool, then Verify
		return nil, err
	}
	relay := outbox.NewRelay(store, bus, outbox.RelayConfig{})
	ob := outbox.New(store, outbox.Config{}, outbox.WithRelay(relay))
	// docs: end
	return &paying{db, store, ob, relay}, nil
}

func (p *paying) pay(ctx context.Context, id string, body []byte) error {
	ob := p.ob
	// docs:
	return ob.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		// The row of the aggregate is locked first: whoever changes it next stores its message later.
		if _, err := tx.ExecContext(ctx, "UPDATE orders SET state = 'paid' WHERE id = ?", id); err != nil {
			return err
		}
		return ob.Publish(ctx, tx, pubsub.Message{Topic: "orders.paid", Key: id, Payload: body})
	})
	// docs: end
}

func (p *paying) handler() pubsub.Handler {
	store := p.store
	// docs:
	inbox := outbox.NewInbox(store, outbox.InboxConfig{Retention: 14 * 24 * time.Hour})
	ship := inbox.Handler("shipping", func(ctx context.Context, tx *sql.Tx, m pubsub.Message) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO parcels (order_id) VALUES (?)", m.Key)
		return err
	})
	// docs: end
	return ship
}

func (p *paying) settled(ctx context.Context, id string, err error) (paid bool, _ error) {
	db := p.db
	// docs:
	if errors.Is(err, outbox.ErrInDoubt) {
		var state string // ask for what the transaction would have changed; do not repeat it unseen
		err := db.QueryRowContext(ctx, "SELECT state FROM orders WHERE id = ?", id).Scan(&state)
		return state == "paid", err
	}
	// docs: end
	return err == nil, err
}

func TestTheOutboxAsTheDocsShow(t *testing.T) {
	ctx := t.Context()
	db, err := sqlite.Open(filepath.Join(t.TempDir(), "orders.db"), sqlite.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = db.ExecContext(ctx, "CREATE TABLE orders (id TEXT, state TEXT); CREATE TABLE parcels (order_id TEXT); INSERT INTO orders VALUES ('7', 'open')")
	require.NoError(t, err)
	bus := &outboxtest.Publisher{}
	p, err := newPaying(ctx, db, bus)
	require.NoError(t, err)
	paid, err := p.settled(ctx, "7", outbox.ErrInDoubt)
	require.NoError(t, err)
	require.False(t, paid)
	require.NoError(t, p.pay(ctx, "7", nil))
	paid, err = p.settled(ctx, "7", outbox.ErrInDoubt)
	require.NoError(t, err)
	require.True(t, paid)

	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.relay.Run(running) }()
	require.NoError(t, bus.Wait(ctx, func(taken []pubsub.Message, _ int) bool { return len(taken) == 1 }))
	stop()
	require.NoError(t, <-done)
	for range 2 {
		require.NoError(t, p.handler()(ctx, bus.Messages()[0]))
	}
	var parcels int
	require.NoError(t, db.QueryRowContext(ctx, "SELECT COUNT(*) FROM parcels").Scan(&parcels))
	require.Equal(t, 1, parcels)
}
