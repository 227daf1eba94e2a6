package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/configdata"
	"github.com/backstay-go/backstay/pubsub"
)

// cleanBatch bounds how many records one statement of Clean deletes, so that it never holds locks for long.
const cleanBatch = 1000

// InboxConfig describes an Inbox.
type InboxConfig struct {
	// Name appears in errors and telemetry. Default "inbox".
	Name string `json:"name"`
	// Retention is how long an ID is remembered, by the database's clock. It must be longer than the time over which the
	// broker may deliver a message again: after it, a duplicate has its effect again. Default 7 days; negative is refused.
	Retention time.Duration `json:"retention"`
}

// MarshalJSON writes snake_case, with durations as text.
func (c InboxConfig) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *InboxConfig) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate reports every fault, naming field and value.
func (c InboxConfig) Validate() error {
	f := configdata.Check("outbox", c.Name)
	f.Require(c.Retention == 0 || c.Retention >= time.Millisecond, "Retention", c.Retention, "0 (7 days) or at least 1ms")
	return f.Err()
}

func (c InboxConfig) withDefaults() InboxConfig {
	if c.Name == "" {
		c.Name = "inbox"
	}
	c.Retention = configdata.Default(c.Retention, 7*24*time.Hour)
	return c
}

// Inbox gives a message one effect per consumer, however often it is delivered. It is safe for concurrent use, starts no
// goroutine and need not be closed. Its zero value is not usable; call NewInbox.
type Inbox[Tx any] struct {
	store      InboxStore[Tx]
	config     InboxConfig
	handled    atomic.Uint64
	duplicates atomic.Uint64
}

// NewInbox returns an Inbox over a store such as *sqloutbox.Store. It panics on a nil store and on a config that Validate
// rejects.
func NewInbox[Tx any](store InboxStore[Tx], cfg InboxConfig) *Inbox[Tx] {
	if store == nil {
		panic("outbox: NewInbox: the store is nil")
	}
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	return &Inbox[Tx]{store: store, config: cfg.withDefaults()}
}

// Once runs fn in the consumer's transaction unless (consumer, id) has been handled before, and returns its result; to a
// duplicate it returns the stored result without running fn. The result is kept as JSON; R = struct{} keeps none. A duplicate
// that arrives while the first is being handled waits for that transaction to end. When fn fails its error is returned, nothing
// is remembered, and the caller should roll back. Effects count once if fn makes them through tx and only there.
func Once[Tx, R any](ctx context.Context, in *Inbox[Tx], tx Tx, consumer, id string, fn func(ctx context.Context) (R, error)) (R, error) {
	var result R
	if consumer == "" || id == "" {
		return result, in.wrap(consumer, id, errors.New("the consumer and the ID must not be empty"))
	}
	first, stored, err := in.store.Claim(ctx, tx, consumer, id, in.config.Retention)
	if err != nil {
		return result, in.wrap(consumer, id, err)
	}
	if !first {
		in.duplicates.Add(1)
		if len(stored) == 0 {
			return result, nil
		}
		if err := json.Unmarshal(stored, &result); err != nil {
			return result, in.wrap(consumer, id, fmt.Errorf("the stored result: %w", err))
		}
		return result, nil
	}
	result, err = fn(ctx)
	if err != nil {
		// If the caller commits all the same, the message must not pass for handled. A transaction that is already lost
		// forgets by itself, hence the ignored error.
		_ = in.store.Forget(context.WithoutCancel(ctx), tx, consumer, id)
		return result, err
	}
	if err := save(ctx, in, tx, consumer, id, result); err != nil {
		return result, in.wrap(consumer, id, err)
	}
	in.handled.Add(1)
	return result, nil
}

func save[Tx, R any](ctx context.Context, in *Inbox[Tx], tx Tx, consumer, id string, result R) error {
	if _, none := any(result).(struct{}); none {
		return nil
	}
	text, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("the result: %w", err)
	}
	return in.store.Save(ctx, tx, consumer, id, text)
}

func (in *Inbox[Tx]) wrap(consumer, id string, err error) error {
	return fmt.Errorf("outbox: inbox %q: consumer %q, message %q: %w", in.config.Name, consumer, id, err)
}

// Handler returns a handler that opens a transaction, runs fn in it at most once per message ID, and commits. A duplicate is
// acknowledged without running fn; an error rolls back and asks for the message again. A message without ID is dead-lettered. Where
// the database ends a transaction in favour of another, as MySQL does with deadlocks, a store that has RetryTx runs fn again.
func (in *Inbox[Tx]) Handler(consumer string, fn func(ctx context.Context, tx Tx, m pubsub.Message) error) pubsub.Handler {
	inTx := in.store.InTx
	if s, ok := in.store.(interface {
		RetryTx(ctx context.Context, fn func(ctx context.Context, tx Tx) error) error
	}); ok {
		inTx = s.RetryTx
	}
	return func(ctx context.Context, m pubsub.Message) error {
		if m.ID == "" {
			return pubsub.DeadLetter(in.wrap(consumer, m.ID, errors.New("the message has no ID")))
		}
		return inTx(ctx, func(ctx context.Context, tx Tx) error {
			_, err := Once(ctx, in, tx, consumer, m.ID, func(ctx context.Context) (struct{}, error) {
				return struct{}{}, fn(ctx, tx, m)
			})
			return err
		})
	}
}

// Clean deletes what has outlived its retention, a thousand records to a transaction, and returns how many went. Call it from
// time to time, from any one process; it is safe beside handlers and beside itself.
func (in *Inbox[Tx]) Clean(ctx context.Context) (int, error) {
	total := 0
	for {
		n, err := in.store.Clean(ctx, cleanBatch)
		total += n
		if err != nil {
			return total, fmt.Errorf("outbox: inbox %q: %w", in.config.Name, err)
		}
		if n < cleanBatch {
			return total, nil
		}
	}
}

// Config returns the configuration with defaults filled in.
func (in *Inbox[Tx]) Config() InboxConfig { return in.config }

// InboxStats counts what an Inbox has done in this process.
type InboxStats struct {
	// Handled counts messages whose effect was made; a transaction that fails to commit afterwards is counted all the same.
	Handled uint64
	// Duplicates counts messages that had been handled before.
	Duplicates uint64
}

// Stats is a snapshot; it never blocks.
func (in *Inbox[Tx]) Stats() InboxStats {
	return InboxStats{Handled: in.handled.Load(), Duplicates: in.duplicates.Load()}
}

// Describe tells a console what this is.
func (in *Inbox[Tx]) Describe() (kind, name string, config any) {
	return "inbox", in.config.Name, in.config
}

// Metrics yields the statistics under their telemetry names.
func (in *Inbox[Tx]) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		_ = yield("handled_total", float64(in.handled.Load())) &&
			yield("duplicates_total", float64(in.duplicates.Load()))
	}
}
