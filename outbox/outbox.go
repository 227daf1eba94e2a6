package outbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/configdata"
	"github.com/backstay-go/backstay/pubsub"
)

// Config describes an Outbox.
type Config struct {
	// Name appears in errors and telemetry. Default "outbox".
	Name string `json:"name"`
	// MaxPayload is the largest payload in bytes that Publish stores, so that a message which the broker would refuse fails
	// where it is made. Default 1 MiB, the limit of an unconfigured NATS server; negative means no limit.
	MaxPayload int `json:"max_payload"`
}

// MarshalJSON writes snake_case, with "off" for a negative number.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate reports every fault. Every value is allowed at present.
func (c Config) Validate() error { return nil }

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "outbox"
	}
	c.MaxPayload = configdata.Default(c.MaxPayload, 1<<20)
	return c
}

// Outbox stores messages in the transaction that changes the data they speak of. It is safe for concurrent use, starts no
// goroutine and need not be closed. Its zero value is not usable; call New.
type Outbox[Tx any] struct {
	store  Store[Tx]
	config Config
	notify []func()
	stored atomic.Uint64
}

// Option sets how an Outbox behaves.
type Option func(*options)

type options struct{ relays []*Relay }

// WithRelay makes InTx and Notify wake a relay of the same process. Without one, messages wait for the relay's next poll. A
// nil relay panics in New.
func WithRelay(r *Relay) Option { return func(o *options) { o.relays = append(o.relays, r) } }

// New returns an Outbox over a store such as *sqloutbox.Store, which fixes Tx. It panics on a nil store or relay.
func New[Tx any](store Store[Tx], cfg Config, opts ...Option) *Outbox[Tx] {
	if store == nil {
		panic("outbox: New: the store is nil")
	}
	var set options
	for _, opt := range opts {
		opt(&set)
	}
	o := &Outbox[Tx]{store: store, config: cfg.withDefaults()}
	for _, r := range set.relays {
		if r == nil {
			panic("outbox: New: the relay is nil")
		}
		o.notify = append(o.notify, r.Notify)
	}
	return o
}

// Publish stores the messages as part of tx: they are published after tx has committed, and never if it is rolled back. It
// checks all of them before it stores any, fills an empty ID (128 random bits in hex) and a zero Time, and sends one statement
// however many messages there are, split only at the database's limit on parameters. Order of a key follows from the order of
// the calls if the transactions have locked the aggregate first. A message with a DeliverAt is refused, since no store keeps it.
// The arguments are not changed. Call Notify after the commit.
func (o *Outbox[Tx]) Publish(ctx context.Context, tx Tx, msgs ...pubsub.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	now := time.Now()
	records := make([]Record, len(msgs))
	for i, m := range msgs {
		if err := o.check(m); err != nil {
			return fmt.Errorf("outbox %q: message %d of %d: %w", o.config.Name, i, len(msgs), err)
		}
		if m.ID == "" {
			m.ID = newID()
		}
		if m.Time.IsZero() {
			m.Time = now
		}
		m.Attempt = 0
		records[i] = Record{Lane: lane(m), Message: m}
	}
	if err := o.store.Insert(ctx, tx, records); err != nil {
		return fmt.Errorf("outbox %q: %w", o.config.Name, err)
	}
	o.stored.Add(uint64(len(msgs)))
	return nil
}

// check refuses what no relay could publish.
func (o *Outbox[Tx]) check(m pubsub.Message) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if limit := o.config.MaxPayload; limit >= 0 && len(m.Payload) > limit {
		return fmt.Errorf("the payload has %d bytes, more than Config.MaxPayload (%d)", len(m.Payload), limit)
	}
	if !m.DeliverAt.IsZero() {
		return fmt.Errorf("DeliverAt is %s: an outbox does not keep it, so it must be zero", m.DeliverAt.Format(time.RFC3339Nano))
	}
	return nil
}

// InTx begins a transaction, runs fn in it, commits, and wakes the relays. It rolls back when fn fails or panics, and fn must
// neither commit nor roll back. fn's error is returned as it is. An error that matches ErrInDoubt means that the answer to the
// commit was lost; any other means that nothing was stored.
func (o *Outbox[Tx]) InTx(ctx context.Context, fn func(ctx context.Context, tx Tx) error) error {
	err := o.store.InTx(ctx, fn)
	if err == nil || errors.Is(err, ErrInDoubt) {
		o.Notify()
	}
	return err
}

// Notify wakes the relays given by WithRelay, after a commit of one's own. It never blocks, and a wake too many does no harm.
func (o *Outbox[Tx]) Notify() {
	for _, wake := range o.notify {
		wake()
	}
}

// Config returns the configuration with defaults filled in.
func (o *Outbox[Tx]) Config() Config { return o.config }

// Stats counts what an Outbox has done.
type Stats struct {
	// Stored counts messages handed to the store, those of transactions rolled back later included.
	Stored uint64
}

// Stats is a snapshot; it never blocks.
func (o *Outbox[Tx]) Stats() Stats { return Stats{Stored: o.stored.Load()} }

// Describe tells a console what this is.
func (o *Outbox[Tx]) Describe() (kind, name string, config any) {
	return "outbox", o.config.Name, o.config
}

// Metrics yields the statistics under their telemetry names.
func (o *Outbox[Tx]) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		yield("stored_total", float64(o.stored.Load()))
	}
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// lane is the 64-bit FNV-1a hash of what orders m, folded so that the low bits, which choose the bucket, depend on all.
func lane(m pubsub.Message) int64 {
	text := m.Key
	if text == "" {
		text = m.ID
	}
	hash := uint64(14695981039346656037)
	for i := range len(text) {
		hash = (hash ^ uint64(text[i])) * 1099511628211
	}
	return int64(hash ^ hash>>32)
}
