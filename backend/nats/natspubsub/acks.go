package natspubsub

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/backstay-go/backstay/pubsub"
)

const (
	// confirmEvery is how long acknowledgements may go without a round trip to the server while others follow.
	confirmEvery = 20 * time.Millisecond
	// confirmMost bounds those that are kept to be sent again.
	confirmMost = 4096
)

// acks are the acknowledgements that were sent and that the server may not have read. A round trip for each Settle would
// cost more than the acknowledgements; so there is one now and then, and what a lost connection may have swallowed
// before it is sent again on the next one. Repeating an acknowledgement is harmless.
type acks struct {
	conn *nats.Conn

	mu         sync.Mutex
	sent       []string // reply subjects
	reconnects uint64   // how often the connection had been made again when the oldest of them was sent
	confirmed  time.Time
}

// add notes what was sent after the connection had been made again so many times. It reports whether it is time for
// confirm.
func (a *acks) add(replies []string, reconnects uint64) (due bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.sent) == 0 || reconnects < a.reconnects { // lost, perhaps, while repeat sent the others again
		a.reconnects = reconnects
	}
	a.sent = append(a.sent, replies...)
	return len(a.sent) > confirmMost || time.Since(a.confirmed) > confirmEvery
}

// forget drops the last n, which the caller sends again itself.
func (a *acks) forget(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent = a.sent[:max(len(a.sent)-n, 0)]
}

// confirm returns nil when the server has read all of them.
func (a *acks) confirm(ctx context.Context) error {
	for {
		if err := a.repeat(); err != nil {
			return err
		}
		a.mu.Lock()
		n, reconnects := len(a.sent), a.reconnects
		a.mu.Unlock()
		if err := flush(ctx, a.conn); err != nil {
			return fmt.Errorf("%w: %w", pubsub.ErrInDoubt, err)
		}
		if n > 0 && a.conn.Stats().Reconnects != reconnects {
			continue // the round trip was perhaps on another connection
		}
		a.mu.Lock()
		a.sent = slices.Delete(a.sent, 0, min(n, len(a.sent)))
		a.confirmed = time.Now()
		a.mu.Unlock()
		return nil
	}
}

// open is the number of those that are not confirmed.
func (a *acks) open() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.sent)
}

// repeat sends them again if there was another connection when they were sent.
func (a *acks) repeat() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.conn.Stats().Reconnects
	if len(a.sent) == 0 || a.reconnects == now {
		return nil
	}
	a.reconnects = now
	for _, reply := range a.sent {
		if err := a.conn.Publish(reply, ackDone); err != nil {
			return err
		}
	}
	return nil
}

// flush returns when the server has read everything sent before.
func flush(ctx context.Context, conn *nats.Conn) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, settleTimeout)
		defer cancel()
	}
	return conn.FlushWithContext(ctx)
}
