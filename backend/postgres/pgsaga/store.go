package pgsaga

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/backstay-go/backstay/configdata"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

// Config describes a Store. It is plain comparable data and fixed once the Store is made.
type Config struct {
	// Prefix begins the name of every table: 1 to 31 lower-case letters, digits and underscores, not a digit first. Default "backstay_".
	Prefix string `json:"prefix"`
	// NotifyEvery is the least time between two notifications by this Store. What is left due within it is found by the
	// runners' polls, a few milliseconds later, because PostgreSQL makes commits that notify take turns. Default 1ms; negative
	// never notifies.
	NotifyEvery time.Duration `json:"notify_every"`
	// ListenPing is how long Listen waits in silence before it asks whether its connection still stands. Default 10s; at least 10ms.
	ListenPing time.Duration `json:"listen_ping"`
}

// MarshalJSON writes snake_case, with durations as text and "off" for a negative one.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

var prefixForm = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,30}$`)

// Validate reports every fault, naming field and value.
func (c Config) Validate() error {
	f := configdata.Check("pgsaga", "")
	f.Require(c.Prefix == "" || prefixForm.MatchString(c.Prefix), "Prefix", strconv.Quote(c.Prefix),
		`empty ("backstay_") or at most 31 lower-case letters, digits and underscores, not a digit first`)
	f.Require(c.ListenPing == 0 || c.ListenPing >= 10*time.Millisecond, "ListenPing", c.ListenPing, "0 (10s) or at least 10ms")
	return f.Err()
}

func (c Config) withDefaults() Config {
	c.Prefix = cmp.Or(c.Prefix, "backstay_")
	c.NotifyEvery = configdata.Default(c.NotifyEvery, time.Millisecond)
	c.ListenPing = configdata.Default(c.ListenPing, 10*time.Second)
	return c
}

// Store is a saga.TxStore. It is safe for concurrent use by any number of runners and processes, has no goroutine of its own while no
// call of it is under way, and need not be closed; the caller closes the pool. Its zero value is not usable; call New.
type Store struct {
	pool     *pgxpool.Pool
	config   Config
	text     texts
	onError  func(error)
	creating creating
	started  time.Time
	notified atomic.Int64 // when NOTIFY was last sent, since started; 0 is never
}

var (
	_ saga.TxStore = (*Store)(nil)
	_ saga.Purger  = (*Store)(nil)
)

// Option sets how a Store behaves.
type Option func(*Store)

// OnListenError calls fn when Listen lost its connection or could not make one; Listen goes on after a pause. It is called by Listen,
// which waits for it. A nil fn makes New fail.
func OnListenError(fn func(error)) Option { return func(s *Store) { s.onError = fn } }

// New returns a Store on pool without touching the database: call Migrate or Verify before use. It fails on a nil pool, option or
// hook and on a Config that Validate rejects.
func New(pool *pgxpool.Pool, cfg Config, opts ...Option) (*Store, error) {
	s := &Store{pool: pool, onError: func(error) {}, started: time.Now()}
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("pgsaga: an option is nil")
		}
		opt(s)
	}
	if pool == nil || s.onError == nil {
		return nil, errors.New("pgsaga: the pool or the hook is nil")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s.config = cfg.withDefaults()
	s.text = textsOf(s.config.Prefix)
	return s, nil
}

// Config returns the configuration with defaults filled in.
func (s *Store) Config() Config { return s.config }

// Schema is every statement that Migrate runs on an empty database; see sqlsaga.Store.
func (s *Store) Schema() (all []string) {
	_ = s.portable(func(p *sqlsaga.Store) error { all = p.Schema(); return nil }) // the arguments were checked by New
	return all
}

// Migrate brings the tables to the present version; see sqlsaga.Store. It returns sqlsaga.ErrSchema when a later version of the package
// has been here.
func (s *Store) Migrate(ctx context.Context) error {
	return s.portable(func(p *sqlsaga.Store) error { return p.Migrate(ctx) })
}

// Verify returns sqlsaga.ErrSchema unless the tables are up to date; see sqlsaga.Store.
func (s *Store) Verify(ctx context.Context) error {
	return s.portable(func(p *sqlsaga.Store) error { return p.Verify(ctx) })
}

// List implements saga.Store.
func (s *Store) List(ctx context.Context, f saga.Filter) (ins []saga.Instance, err error) {
	err = s.portable(func(p *sqlsaga.Store) error { ins, err = p.List(ctx, f); return err })
	return ins, err
}

// Counts tells how many instances there are, by definition, version and status; see sqlsaga.Store.
func (s *Store) Counts(ctx context.Context) (counts []sqlsaga.Count, err error) {
	err = s.portable(func(p *sqlsaga.Store) error { counts, err = p.Counts(ctx); return err })
	return counts, err
}

// Purge implements saga.Purger; see sqlsaga.Store.
func (s *Store) Purge(ctx context.Context, age time.Duration, limit int) (n int, err error) {
	err = s.portable(func(p *sqlsaga.Store) error { n, err = p.Purge(ctx, age, limit); return err })
	return n, err
}

// portable runs fn on the store over database/sql, which does what is not worth a second form. It lives for the call only, since a
// sql.DB has a goroutine.
func (s *Store) portable(fn func(*sqlsaga.Store) error) error {
	db := stdlib.OpenDBFromPool(s.pool)
	p, err := sqlsaga.New(db, sqlsaga.PostgreSQL(), sqlsaga.WithPrefix(s.config.Prefix))
	if err == nil {
		err = fn(p)
	}
	return errors.Join(err, db.Close())
}

// dueToNotify reports whether NOTIFY was last sent long enough ago, and takes it as sent now.
func (s *Store) dueToNotify() bool {
	if s.config.NotifyEvery < 0 {
		return false
	}
	now, last := int64(time.Since(s.started))+1, s.notified.Load()
	return (last == 0 || now-last >= int64(s.config.NotifyEvery)) && s.notified.CompareAndSwap(last, now)
}

// wrap names the call; nil stays nil.
func wrap(call string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pgsaga: %s: %w", call, err)
}

// flag is how a truth value is kept.
func flag(v bool) number {
	if v {
		return 1
	}
	return 0
}

// encode is the JSON form of a map; nothing for an empty one.
func encode[V any](m map[string]V) (word, error) {
	if len(m) == 0 {
		return "", nil
	}
	data, err := json.Marshal(m)
	return word(data), err
}

// decode reads what encode has written.
func decode[V any](text string) (m map[string]V, err error) {
	if text == "" {
		return nil, nil
	}
	err = json.Unmarshal([]byte(text), &m)
	return m, err
}

// millis rounds up: nothing becomes due early.
func millis(d time.Duration) number {
	return number((d + time.Millisecond - 1) / time.Millisecond)
}
