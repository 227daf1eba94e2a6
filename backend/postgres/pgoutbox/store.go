package pgoutbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/backstay-go/backstay/configdata"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
)

// rollbackTimeout bounds a rollback, which is made although the caller's context may have ended.
const rollbackTimeout = 5 * time.Second

// Config describes a Store.
type Config struct {
	// Prefix begins the name of every table: letters, digits and underscores, not a digit first, at most 32. Default "backstay_".
	Prefix string `json:"prefix"`
	// KeyLock makes Publish take an advisory lock on each key until the transaction ends, before the message gets its place in
	// the order. Transactions on one key then take turns from there on, whatever else they lock. Two that publish several keys by
	// several calls, in different order, can deadlock; PostgreSQL then fails one of them.
	KeyLock bool `json:"key_lock"`
	// NotifyEvery is the least time between two notifications by this Store. A commit within it is left to the relay's poll, a few
	// milliseconds later, because PostgreSQL makes commits that notify take turns. Default 1ms; negative never notifies.
	NotifyEvery time.Duration `json:"notify_every"`
	// ListenPing is how long Listen waits in silence before it asks whether its connection still stands. Default 10s; at least 10ms.
	ListenPing time.Duration `json:"listen_ping"`
	// Rescan is how often a fetch looks below the low-water mark, in case numbers were drawn anew, as after a reset of the
	// sequence. Default 30s; negative means no mark: every fetch looks at all.
	Rescan time.Duration `json:"rescan"`
	// InboxByDay makes Migrate divide the inbox into a partition for each day on which messages were handled, in UTC by the database's clock.
	// Clean then drops whole days, when all of a day has expired, instead of deleting rows: no dead rows, no vacuum, one index less. A message
	// is remembered until its day goes, so for up to a day longer than InboxConfig.Retention. Clean also makes the days ahead, eight with today:
	// if it has not run for a week, handlers fail, and repeat nothing, until it does. Who runs it must own the table. Handlers need READ COMMITTED
	// transactions. There is no way back. Default false, which leaves an inbox as it is.
	InboxByDay bool `json:"inbox_by_day"`
}

// MarshalJSON writes snake_case, with durations as text and "off" for a negative one.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate reports every fault, naming field and value.
func (c Config) Validate() error {
	f := configdata.Check("pgoutbox", "")
	f.Require((sqloutbox.Config{Prefix: c.Prefix}).Validate() == nil, "Prefix", strconv.Quote(c.Prefix),
		`empty ("backstay_") or at most 32 letters, digits and underscores, not a digit first`)
	f.Require(c.ListenPing == 0 || c.ListenPing >= 10*time.Millisecond, "ListenPing", c.ListenPing, "0 (10s) or at least 10ms")
	return f.Err()
}

func (c Config) withDefaults() Config {
	c.Prefix = cmp.Or(c.Prefix, "backstay_")
	c.NotifyEvery = configdata.Default(c.NotifyEvery, time.Millisecond)
	c.ListenPing = configdata.Default(c.ListenPing, 10*time.Second)
	c.Rescan = configdata.Default(c.Rescan, 30*time.Second)
	return c
}

// Store is an outbox.Store, outbox.Queue, outbox.Inspector and outbox.InboxStore of pgx.Tx. It is safe for concurrent use, starts no
// goroutine and need not be closed; the caller closes the pool. Its zero value is not usable; call New.
type Store struct {
	pool     *pgxpool.Pool
	config   Config
	text     texts
	days     dayTexts
	mark     mark
	onError  func(error)
	started  time.Time
	notified atomic.Int64 // when NOTIFY was last sent, since started; 0 is never
}

var (
	_ outbox.Store[pgx.Tx]      = (*Store)(nil)
	_ outbox.Queue              = (*Store)(nil)
	_ outbox.Prefetcher         = (*Store)(nil)
	_ outbox.Inspector          = (*Store)(nil)
	_ outbox.InboxStore[pgx.Tx] = (*Store)(nil)
)

// Option sets how a Store behaves.
type Option func(*Store)

// OnListenError calls fn when Listen lost its connection or could not make one; Listen goes on after a pause. It is called by Listen,
// which waits for it. A nil fn makes New fail.
func OnListenError(fn func(error)) Option { return func(s *Store) { s.onError = fn } }

// New returns a Store on pool without touching the database: call Migrate or Verify before use. It fails on a nil pool or hook and on
// a Config that Validate rejects.
func New(pool *pgxpool.Pool, cfg Config, opts ...Option) (*Store, error) {
	s := &Store{pool: pool, onError: func(error) {}, started: time.Now()}
	for _, opt := range opts {
		opt(s)
	}
	if pool == nil || s.onError == nil {
		return nil, errors.New("pgoutbox: the pool or the hook is nil")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s.config = cfg.withDefaults()
	s.mark.every = 100 * time.Millisecond // each fetch reads the rows that have died since
	s.text, s.days = textsOf(s.config.Prefix), dayTextsOf(s.config.Prefix)
	return s, nil
}

// Config returns the configuration with defaults filled in.
func (s *Store) Config() Config { return s.config }

// Schema is the SQL that Migrate runs, for teams that migrate by other means; see sqloutbox.Store.
func (s *Store) Schema() string {
	text := ""
	_ = s.portable(func(p *sqloutbox.Store) error { text = p.Schema(); return nil }) // the arguments were checked by New
	if s.config.InboxByDay {
		text += "\n-- inbox by day\n" + s.days.divide + ";\n\n" + s.days.make + ";\n"
	}
	return text
}

// Migrate creates what is missing; see sqloutbox.Store. With Config.InboxByDay it divides the inbox, and keeps what was handled before; it reads
// the whole of that once, while handlers wait.
func (s *Store) Migrate(ctx context.Context) error {
	err := s.portable(func(p *sqloutbox.Store) error { return p.Migrate(ctx) })
	if err != nil || !s.config.InboxByDay {
		return err
	}
	return s.migrateDays(ctx)
}

// Verify checks, without changing anything, that the tables have what the store needs; see sqloutbox.Store.
func (s *Store) Verify(ctx context.Context) error {
	err := s.portable(func(p *sqloutbox.Store) error { return p.Verify(ctx) })
	if err != nil || !s.config.InboxByDay {
		return err
	}
	return s.verifyDays(ctx)
}

// portable runs fn on the store over database/sql, which does what is not worth a second form. It lives for the call only, since a
// sql.DB has a goroutine.
func (s *Store) portable(fn func(*sqloutbox.Store) error) error {
	db := stdlib.OpenDBFromPool(s.pool)
	p, err := sqloutbox.New(db, sqloutbox.PostgreSQL(), sqloutbox.Config{Prefix: s.config.Prefix})
	if err == nil {
		err = fn(p)
	}
	return errors.Join(err, db.Close())
}

// InTx begins a transaction with the isolation that the server or the pool sets, runs fn and commits. It rolls back when fn fails,
// panics or ends its goroutine. A commit that failed without the server's word gives an error that matches outbox.ErrInDoubt.
func (s *Store) InTx(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return fmt.Errorf("pgoutbox: begin: %w", err)
	}
	committing := false
	defer func() {
		if committing {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		_ = tx.Rollback(ctx)
	}()
	if err := fn(ctx, tx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pgoutbox: rolled back: %w", context.Cause(ctx))
	}
	committing = true
	err = tx.Commit(ctx)
	if err == nil {
		return nil
	}
	if refused(err) {
		return fmt.Errorf("pgoutbox: commit: %w", err)
	}
	return fmt.Errorf("%w: %w", outbox.ErrInDoubt, err)
}

// refused reports whether err is the server's word that the transaction was rolled back. A FATAL error is not: the server may have
// committed and been told to stop before it answered.
func refused(err error) bool {
	if errors.Is(err, pgx.ErrTxCommitRollback) || errors.Is(err, pgx.ErrTxClosed) {
		return true
	}
	var answer *pgconn.PgError
	return errors.As(err, &answer) && cmp.Or(answer.SeverityUnlocalized, answer.Severity) == "ERROR"
}

// Insert stores the records in tx with one statement, which also wakes the relays when tx commits; see Config.NotifyEvery.
func (s *Store) Insert(ctx context.Context, tx pgx.Tx, records []outbox.Record) error {
	if len(records) == 0 {
		return nil
	}
	if s.config.KeyLock {
		if err := s.lockKeys(ctx, tx, records); err != nil {
			return fmt.Errorf("pgoutbox: lock keys: %w", err)
		}
	}
	one, many := s.text.insertOne, s.text.insertMany
	if s.dueToNotify() {
		one, many = s.text.insertOneNotify, s.text.insertManyNotify
	}
	var err error
	if len(records) == 1 {
		err = insertOne(ctx, tx, one, records[0])
	} else {
		err = insertMany(ctx, tx, many, records)
	}
	if err != nil {
		return fmt.Errorf("pgoutbox: insert: %w", err)
	}
	return nil
}

func insertOne(ctx context.Context, tx pgx.Tx, text string, r outbox.Record) error {
	header, err := sqloutbox.EncodeHeader(r.Message.Header)
	if err != nil {
		return err
	}
	m := r.Message
	_, err = tx.Exec(ctx, text, r.Lane, m.ID, m.Topic, m.Key, header, nonNil(m.Payload), m.Time.UnixNano())
	return err
}

func insertMany(ctx context.Context, tx pgx.Tx, text string, records []outbox.Record) error {
	n := len(records)
	numbers, words, payloads := make([]int64, 2*n), make([]string, 4*n), make([][]byte, n)
	lanes, sent := numbers[:n], numbers[n:]
	ids, topics, keys, headers := words[:n], words[n:2*n], words[2*n:3*n], words[3*n:]
	for i, r := range records {
		m := r.Message
		header, err := sqloutbox.EncodeHeader(m.Header)
		if err != nil {
			return err
		}
		lanes[i], sent[i], payloads[i] = r.Lane, m.Time.UnixNano(), nonNil(m.Payload)
		ids[i], topics[i], keys[i], headers[i] = m.ID, m.Topic, m.Key, header
	}
	_, err := tx.Exec(ctx, text, lanes, ids, topics, keys, headers, payloads, sent)
	return err
}

// lockKeys takes the locks of the keys in ascending order, so that calls with several keys do not deadlock.
func (s *Store) lockKeys(ctx context.Context, tx pgx.Tx, records []outbox.Record) error {
	lanes := make([]int64, 0, len(records))
	for _, r := range records {
		if r.Message.Key != "" {
			lanes = append(lanes, r.Lane)
		}
	}
	if len(lanes) == 0 {
		return nil
	}
	slices.Sort(lanes)
	_, err := tx.Exec(ctx, s.text.lockKeys, slices.Compact(lanes))
	return err
}

// dueToNotify reports whether NOTIFY was last sent long enough ago, and takes it as sent now.
func (s *Store) dueToNotify() bool {
	if s.config.NotifyEvery < 0 {
		return false
	}
	now, last := int64(time.Since(s.started))+1, s.notified.Load()
	return (last == 0 || now-last >= int64(s.config.NotifyEvery)) && s.notified.CompareAndSwap(last, now)
}

// nonNil keeps the driver from storing NULL.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// channel is what relays listen to. Folded names would differ between LISTEN and pg_notify, hence the lower case.
func channel(prefix string) string { return strings.ToLower(prefix) + "outbox" }
