package sqloutbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay-go/backstay/configdata"
	"github.com/backstay-go/backstay/outbox"
)

// maxRows bounds one INSERT. Its parameters stay far below the limit of every database, and a longer text gains nothing.
const maxRows = 500

// maxTries is how often a transaction is tried that loses against others each time.
const maxTries = 10

// Config describes a Store.
type Config struct {
	// Prefix begins the name of every table: letters, digits and underscores, not a digit first, at most 32. Default "backstay_".
	Prefix string `json:"prefix"`
	// Rescan is how often a fetch looks at the whole table. In between, fetches pass over the numbers at its front that were drawn more
	// than Rescan ago and are gone, since a database may keep deleted rows while somebody holds a snapshot. A transaction that stays open
	// for longer than Rescan may have its messages published by up to Rescan later. Default 10s; negative means that every
	// fetch looks at all.
	Rescan time.Duration `json:"rescan"`
}

// MarshalJSON writes snake_case, with durations as text and "off" for a negative one.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

var prefixPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,31}$`)

// Validate reports every fault, naming field and value.
func (c Config) Validate() error {
	f := configdata.Check("sqloutbox", "")
	f.Require(c.Prefix == "" || prefixPattern.MatchString(c.Prefix), "Prefix", strconv.Quote(c.Prefix),
		`empty ("backstay_") or at most 32 letters, digits and underscores, not a digit first`)
	return f.Err()
}

// Store is an outbox.Store, outbox.Queue, outbox.Inspector and outbox.InboxStore of *sql.Tx. It is safe for concurrent use, starts
// no goroutine and need not be closed; the caller closes the database. Its zero value is not usable; call New.
type Store struct {
	db      *sql.DB
	dialect Dialect
	prefix  string
	text    texts
	mark    mark
}

var (
	_ outbox.Store[*sql.Tx]      = (*Store)(nil)
	_ outbox.Queue               = (*Store)(nil)
	_ outbox.Prefetcher          = (*Store)(nil)
	_ outbox.Inspector           = (*Store)(nil)
	_ outbox.InboxStore[*sql.Tx] = (*Store)(nil)
)

// texts are the statements that do not depend on arguments.
type texts struct {
	insert, insertMany, backlog, held            string
	fetch, fetchExcept, fetchRest, oldest        string
	leases, alive, join, bury, dead              string
	parked, claim, result, save, forget, expired string
	hold, holdRow, holdReplace, lockParked, edit string
}

// New returns a Store on db without touching the database: call Migrate or Verify before use. It fails on a nil db, on the zero
// Dialect and on a Config that Validate rejects.
func New(db *sql.DB, dialect Dialect, cfg Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("sqloutbox: the database is nil")
	}
	if dialect.name == "" {
		return nil, errors.New("sqloutbox: the dialect is empty: use SQLite(), MySQL() or PostgreSQL()")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Store{db: db, dialect: dialect, prefix: cfg.Prefix}
	if s.prefix == "" {
		s.prefix = "backstay_"
	}
	s.mark.period = configdata.Default(cfg.Rescan, 10*time.Second)
	s.prepareTexts()
	return s, nil
}

// sql fills in the prefix and the clock, and writes the parameters as the dialect wants them.
func (s *Store) sql(text string) string {
	return s.bind(s.fill(text))
}

// fill fills in the prefix and the clock.
func (s *Store) fill(text string) string {
	return strings.NewReplacer("{p}", s.prefix, "{now}", s.dialect.now, "{lock}", s.dialect.lock,
		"{share}", cmp.Or(s.dialect.share, s.dialect.lock), "{guard}", s.dialect.guard, "{inMask}", s.dialect.inMask).Replace(text)
}

// number replaces each ? by $1, $2 and so on. No text of this package has a question mark of another meaning.
func number(text string) string {
	out := make([]byte, 0, len(text)+64)
	n := int64(0)
	for i := range len(text) {
		if text[i] != '?' {
			out = append(out, text[i])
			continue
		}
		n++
		out = strconv.AppendInt(append(out, '$'), n, 10)
	}
	return string(out)
}

func (s *Store) prepareTexts() {
	columns := "o.seq, o.lane, o.id, o.topic, o.msg_key, o.header, o.payload, o.sent_at"
	fetch := "SELECT " + columns + ", COALESCE(h.attempts, 0), COALESCE(h.seq, 0) FROM {p}outbox o LEFT JOIN {p}outbox_holds h " +
		"ON h.lane = o.lane WHERE o.seq > ? AND {inMask} AND (h.lane IS NULL OR h.parked_at IS NULL AND h.due_at <= (SELECT {now}))"
	const fetchEnd, list = " ORDER BY o.seq LIMIT ?", "{list}"
	fetchParts := strings.Split(s.sql(fetch+" AND o.seq NOT IN "+list+fetchEnd), list) // a list of numbers comes between
	s.text = texts{
		insert:      s.fill("INSERT INTO {p}outbox (lane, id, topic, msg_key, header, payload, sent_at) VALUES "),
		insertMany:  s.sql(s.dialect.insertMany),
		fetch:       s.sql(fetch + fetchEnd),
		fetchExcept: fetchParts[0],
		fetchRest:   fetchParts[1],
		oldest:      s.fill("SELECT seq FROM {p}outbox ORDER BY seq LIMIT 1"),
		backlog: s.sql("SELECT (SELECT COUNT(*) FROM (SELECT 1 FROM {p}outbox WHERE seq > ? ORDER BY seq LIMIT 100000) AS counted), " +
			"(SELECT COUNT(*) FROM {p}outbox_holds WHERE parked_at IS NOT NULL), " +
			"COALESCE((SELECT {now} - stored_at FROM {p}outbox WHERE seq > ? ORDER BY seq LIMIT 1), 0)"),
		held:        s.sql("SELECT bucket, epoch FROM {guard}{p}outbox_leases l WHERE owner = ? ORDER BY bucket{share}"),
		leases:      s.sql("SELECT bucket, owner, epoch, CASE WHEN expires_at <= {now} THEN 1 ELSE 0 END FROM {guard}{p}outbox_leases l ORDER BY bucket{lock}"),
		bury:        s.sql("DELETE FROM {p}outbox_relays WHERE owner = ? OR expires_at <= {now}"),
		join:        s.sql("INSERT INTO {p}outbox_relays (owner, expires_at) VALUES (?, {now} + ?)"),
		alive:       s.sql("SELECT COUNT(*) FROM {p}outbox_relays"),
		dead:        s.sql("DELETE FROM {p}outbox_relays WHERE owner = ? AND NOT EXISTS (SELECT 1 FROM {p}outbox_leases WHERE owner = ?)"),
		parked:      s.sql("SELECT " + columns + ", h.attempts, h.seq, h.error, h.parked_at FROM {p}outbox_holds h JOIN {p}outbox o ON o.seq = h.seq WHERE h.parked_at IS NOT NULL AND h.seq > ? ORDER BY h.seq LIMIT ?"),
		lockParked:  s.sql("SELECT seq FROM {p}outbox_holds l WHERE seq = ? AND parked_at IS NOT NULL{lock}"),
		edit:        s.sql("UPDATE {p}outbox SET topic = ?, header = ?, payload = ? WHERE seq = ?"),
		claim:       s.sql(s.dialect.claim),
		result:      s.sql("SELECT result FROM {p}inbox WHERE consumer = ? AND id = ?" + s.dialect.share),
		save:        s.sql("UPDATE {p}inbox SET result = ? WHERE consumer = ? AND id = ?"),
		forget:      s.sql("DELETE FROM {p}inbox WHERE consumer = ? AND id = ?"),
		expired:     s.sql("SELECT seq FROM {p}inbox WHERE expires_at <= (SELECT {now}) ORDER BY expires_at LIMIT ?"),
		hold:        s.fill("INSERT INTO {p}outbox_holds (lane, seq, attempts, error, due_at, parked_at) VALUES "),
		holdRow:     s.fill(s.dialect.holdRow),
		holdReplace: s.fill(s.dialect.holdReplace),
	}
}

// InTx begins a transaction with the driver's default isolation, runs fn and commits. It rolls back when fn fails, panics or ends
// its goroutine. A commit that fails after it was sent gives an error that matches outbox.ErrInDoubt.
func (s *Store) InTx(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	return s.transact(ctx, sql.LevelDefault, fn)
}

// RetryTx is InTx for an fn that may run more than once: it begins again, with a new transaction, when the last one lost against
// another and was rolled back, which MySQL() calls a deadlock or a lock wait timeout; up to ten times, a few milliseconds apart.
// With the other dialects it is InTx. Inbox.Handler uses it.
func (s *Store) RetryTx(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	return s.retry(ctx, sql.LevelDefault, fn)
}

// own runs a transaction of the store itself.
func (s *Store) own(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	return s.retry(ctx, s.dialect.isolation, fn)
}

func (s *Store) retry(ctx context.Context, isolation sql.IsolationLevel, fn func(ctx context.Context, tx *sql.Tx) error) error {
	for try := 1; ; try++ {
		err := s.transact(ctx, isolation, fn)
		if err == nil || s.dialect.again == nil || !s.dialect.again(err) || try == maxTries {
			return err
		}
		select {
		case <-time.After(rand.N(time.Duration(try) * 5 * time.Millisecond)):
		case <-ctx.Done():
			return err
		}
	}
}

func (s *Store) transact(ctx context.Context, isolation sql.IsolationLevel, fn func(ctx context.Context, tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: isolation})
	if err != nil {
		return fmt.Errorf("sqloutbox: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	if err := fn(ctx, tx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sqloutbox: rolled back: %w", context.Cause(ctx))
	}
	switch err := tx.Commit(); {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrTxDone):
		return fmt.Errorf("sqloutbox: commit: %w", err)
	default:
		return fmt.Errorf("%w: %w", outbox.ErrInDoubt, err)
	}
}

// Insert stores the records in tx with one statement; on SQLite and MySQL, with one for every 500 of them.
func (s *Store) Insert(ctx context.Context, tx *sql.Tx, records []outbox.Record) error {
	if s.text.insertMany != "" && len(records) > 1 {
		return s.insertArrays(ctx, tx, records)
	}
	for chunk := range slices.Chunk(records, maxRows) {
		args := make([]any, 0, 7*len(chunk))
		for _, r := range chunk {
			m := r.Message
			header, err := EncodeHeader(m.Header)
			if err != nil {
				return fmt.Errorf("sqloutbox: insert: %w", err)
			}
			args = append(args, r.Lane, m.ID, m.Topic, m.Key, header, nonNil(m.Payload), m.Time.UnixNano())
		}
		if _, err := tx.ExecContext(ctx, s.bind(s.text.insert+rowList("(?, ?, ?, ?, ?, ?, ?)", len(chunk))), args...); err != nil {
			return fmt.Errorf("sqloutbox: insert: %w", err)
		}
	}
	return nil
}

// bind writes the parameters of a text that fill made.
func (s *Store) bind(text string) string {
	if s.dialect.numbered {
		return number(text)
	}
	return text
}

// rowList is n rows of a VALUES clause.
func rowList(row string, n int) string { return row + strings.Repeat(", "+row, n-1) }

// nonNil keeps a driver from storing NULL.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// scanRecord reads the columns of a record, its lane's attempts and the message they belong to, then those in more.
func scanRecord(rows *sql.Rows, more ...any) (outbox.Record, error) {
	var r outbox.Record
	var header string
	var sent, head int64
	m := &r.Message
	dest := append([]any{&r.Seq, &r.Lane, &m.ID, &m.Topic, &m.Key, &header, &m.Payload, &sent, &r.Attempts, &head}, more...)
	if err := rows.Scan(dest...); err != nil {
		return r, err
	}
	if head != r.Seq {
		r.Attempts = 0
	}
	m.Time = time.Unix(0, sent)
	m.Header, r.Fault = DecodeHeader(header)
	return r, nil
}

// in is a list of integers for IN (…). As literals they need no parameters, of which a statement may have only so many.
func in(n int, value func(int) int64) string {
	text := make([]byte, 0, 8*n+2)
	text = append(text, '(')
	for i := range n {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, value(i), 10)
	}
	return string(append(text, ')'))
}

// deleteSeqs is a DELETE of the rows of a table whose seq is in list, found by the index called key. A condition may follow it.
func (s *Store) deleteSeqs(table, key, list string) string {
	text := cmp.Or(s.dialect.deleteSeqs, "DELETE FROM {t} WHERE seq IN ({list})")
	return strings.NewReplacer("{t}", s.prefix+table, "{k}", key, "{list}", strings.Trim(list, "()")).Replace(text)
}
