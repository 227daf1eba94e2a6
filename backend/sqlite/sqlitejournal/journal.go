package sqlitejournal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"

	"github.com/backstay-go/backstay/cache"
)

// ErrInUse says that the journal is open already, in this process or in another.
var ErrInUse = errors.New("in use by another process")

const (
	codeBusy = 5 // SQLITE_BUSY, in the low byte of an extended code
	// format is what PRAGMA user_version says of a journal that this package can read.
	format = 1
)

const schema = `
CREATE TABLE IF NOT EXISTS backstay_pending (
	key     BLOB    PRIMARY KEY,
	seq     INTEGER NOT NULL,
	deleted INTEGER NOT NULL,
	value   BLOB
);
CREATE TABLE IF NOT EXISTS backstay_last (
	one INTEGER PRIMARY KEY CHECK (one = 1),
	seq INTEGER NOT NULL
);
INSERT INTO backstay_last (one, seq) VALUES (1, 0) ON CONFLICT DO NOTHING;
PRAGMA user_version = 1;`

// Journal is a [cache.Journal] in a SQLite file. Make it with [Open]; the zero value is not usable. It serves one
// WriteBehind. Whoever opened it closes it, after the WriteBehind.
type Journal[K comparable, V any] struct {
	path   string
	keys   Codec[K]
	values Codec[V]

	db   *sql.DB
	conn *sql.Conn // the one that holds the lock
}

// Codec turns what a journal keeps into bytes and back. Equal bytes must mean equal values. It is used by one goroutine at a
// time.
type Codec[T any] struct {
	// Encode returns the bytes of a value, or an error that the caller of Set gets.
	Encode func(T) ([]byte, error)
	// Decode returns the value of what Encode made, also if that was made by an older version of the program.
	Decode func([]byte) (T, error)
}

// jsonCodec is the default: encoding/json.
func jsonCodec[T any]() Codec[T] {
	return Codec[T]{
		Encode: func(v T) ([]byte, error) { return json.Marshal(v) },
		Decode: func(b []byte) (v T, err error) { return v, json.Unmarshal(b, &v) },
	}
}

// Option changes how a [Journal] encodes.
type Option[K comparable, V any] func(*Journal[K, V])

// WithKeys encodes the keys by c instead of JSON.
func WithKeys[K comparable, V any](c Codec[K]) Option[K, V] {
	return func(j *Journal[K, V]) { j.keys = c }
}

// WithValues encodes the values by c instead of JSON.
func WithValues[K comparable, V any](c Codec[V]) Option[K, V] {
	return func(j *Journal[K, V]) { j.values = c }
}

// Open opens the journal in the file at path, creating it when its directory exists, and locks it until Close or the end
// of the process. It does not wait: the error is [ErrInUse] while another has it open. By default keys and values
// are kept as JSON, so that what JSON leaves out, such as unexported fields, is lost. A codec that is incomplete
// panics.
func Open[K comparable, V any](path string, opts ...Option[K, V]) (*Journal[K, V], error) {
	j := &Journal[K, V]{path: path, keys: jsonCodec[K](), values: jsonCodec[V]()}
	for _, opt := range opts {
		opt(j)
	}
	if j.keys.Encode == nil || j.keys.Decode == nil || j.values.Encode == nil || j.values.Decode == nil {
		panic(fmt.Errorf("sqlitejournal %q: a codec lacks a function", path))
	}
	dsn, err := dataSource(path)
	if err != nil {
		return nil, j.explain("open", err)
	}
	if j.db, err = sql.Open("sqlite", dsn); err != nil {
		return nil, j.explain("open", err)
	}
	if err := j.lock(context.Background()); err != nil {
		return nil, j.explain("open", errors.Join(err, j.Close()))
	}
	return j, nil
}

// dataSource is the driver's name for the file. The locking mode comes before the first access, so that SQLite keeps no
// shared memory beside the file, and a busy file is refused at once.
func dataSource(path string) (string, error) {
	if path == "" || path == ":memory:" || strings.HasPrefix(path, "file:") || strings.ContainsRune(path, 0) {
		return "", errors.New("this is not the path of a file")
	}
	file, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if file = filepath.ToSlash(file); !strings.HasPrefix(file, "/") {
		file = "/" + file // a drive letter
	}
	name := url.URL{Scheme: "file", Path: file}
	name.RawQuery = url.Values{
		"_busy_timeout": {"0"},
		"_pragma":       {"locking_mode=EXCLUSIVE"},
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_txlock":       {"immediate"},
	}.Encode()
	return name.String(), nil
}

// lock takes the connection whose locks keep others out, and prepares it.
func (j *Journal[K, V]) lock(ctx context.Context) (err error) {
	if j.conn, err = j.db.Conn(ctx); err != nil {
		return err
	}
	var version int
	if err := j.conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > format {
		return fmt.Errorf("the file has format %d and this program knows %d: it was written by a newer one", version, format)
	}
	if _, err := j.conn.ExecContext(ctx, "BEGIN IMMEDIATE;"+schema+"COMMIT;"); err != nil {
		return err
	}
	return nil
}

// Close releases the file. It is called after the WriteBehind has been closed.
func (j *Journal[K, V]) Close() error {
	if j.conn == nil {
		return j.db.Close()
	}
	return errors.Join(j.conn.Close(), j.db.Close())
}

// Replay returns what has been recorded and not removed, in the order of Seq, and the highest Seq ever recorded. A record
// that cannot be decoded is an error, since leaving it out would lose it.
func (j *Journal[K, V]) Replay(ctx context.Context) (pending []cache.Write[K, V], last uint64, err error) {
	if err := j.conn.QueryRowContext(ctx, "SELECT seq FROM backstay_last").Scan(&last); err != nil {
		return nil, 0, j.explain("replay", err)
	}
	rows, err := j.conn.QueryContext(ctx, "SELECT key, seq, deleted, value FROM backstay_pending ORDER BY seq")
	if err != nil {
		return nil, 0, j.explain("replay", err)
	}
	for rows.Next() {
		w, err := j.read(rows)
		if err != nil {
			return nil, 0, j.explain("replay", errors.Join(err, rows.Close()))
		}
		pending = append(pending, w)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, 0, j.explain("replay", err)
	}
	return pending, last, nil
}

func (j *Journal[K, V]) read(rows *sql.Rows) (w cache.Write[K, V], err error) {
	var key, value []byte
	if err := rows.Scan(&key, &w.Seq, &w.Deleted, &value); err != nil {
		return w, err
	}
	if w.Key, err = j.keys.Decode(key); err != nil {
		return w, fmt.Errorf("key %q: %w", key, err)
	}
	if w.Deleted {
		return w, nil
	}
	if w.Value, err = j.values.Decode(value); err != nil {
		return w, fmt.Errorf("value of key %q: %w", key, err)
	}
	return w, nil
}

// Commit records and removes in one transaction, flushed to disk when it returns nil.
func (j *Journal[K, V]) Commit(ctx context.Context, add, written []cache.Write[K, V]) error {
	err := j.commit(ctx, add, written)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil: // the engine says only that it was interrupted
		return j.explain("record", fmt.Errorf("%w: %w", ctx.Err(), err))
	default:
		return j.explain("record", err)
	}
}

func (j *Journal[K, V]) commit(ctx context.Context, add, written []cache.Write[K, V]) error {
	records, err := j.encode(add)
	if err != nil {
		return err
	}
	tx, err := j.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := j.change(ctx, tx, records, written); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

type row struct {
	key, value []byte
	seq        uint64
	deleted    bool
}

// encode comes before the transaction: what cannot be encoded costs no flush.
func (j *Journal[K, V]) encode(add []cache.Write[K, V]) ([]row, error) {
	rows := make([]row, 0, len(add))
	for _, w := range add {
		key, err := j.key(w.Key)
		if err != nil {
			return nil, err
		}
		r := row{key: key, seq: w.Seq, deleted: w.Deleted}
		if !w.Deleted {
			if r.value, err = j.values.Encode(w.Value); err != nil {
				return nil, fmt.Errorf("value of key %v: %w", w.Key, err)
			}
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// key refuses keys that would come back as another, as JSON makes of strings that are not UTF-8: two keys could share a
// record.
func (j *Journal[K, V]) key(key K) ([]byte, error) {
	text, err := j.keys.Encode(key)
	if err != nil {
		return nil, fmt.Errorf("key %v: %w", key, err)
	}
	back, err := j.keys.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("key %v: its codec does not read what it has written: %w", key, err)
	}
	if back != key {
		return nil, fmt.Errorf("key %v does not survive its codec: it comes back as %v; give another by WithKeys", key, back)
	}
	return text, nil
}

func (j *Journal[K, V]) change(ctx context.Context, tx *sql.Tx, records []row, written []cache.Write[K, V]) error {
	if len(records) > 0 {
		if err := insert(ctx, tx, records); err != nil {
			return err
		}
	}
	if len(written) == 0 {
		return nil
	}
	remove, err := tx.PrepareContext(ctx, "DELETE FROM backstay_pending WHERE key = ? AND seq = ?")
	if err != nil {
		return err
	}
	for _, w := range written {
		key, err := j.keys.Encode(w.Key)
		if err != nil {
			return err
		}
		if _, err := remove.ExecContext(ctx, key, w.Seq); err != nil {
			return err
		}
	}
	return remove.Close()
}

func insert(ctx context.Context, tx *sql.Tx, records []row) error {
	record, err := tx.PrepareContext(ctx, "INSERT INTO backstay_pending (key, seq, deleted, value) VALUES (?, ?, ?, ?) "+
		"ON CONFLICT (key) DO UPDATE SET seq = excluded.seq, deleted = excluded.deleted, value = excluded.value")
	if err != nil {
		return err
	}
	for _, r := range records {
		if _, err := record.ExecContext(ctx, r.key, r.seq, r.deleted, r.value); err != nil {
			return err
		}
	}
	if err := record.Close(); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE backstay_last SET seq = ?", records[len(records)-1].seq)
	return err
}

// explain adds what was tried to err, and says what SQLite's busy error means here.
func (j *Journal[K, V]) explain(doing string, err error) error {
	if failed, ok := errors.AsType[*sqlite.Error](err); ok && failed.Code()&0xff == codeBusy {
		return fmt.Errorf("sqlitejournal: %s %q: %w", doing, j.path, ErrInUse)
	}
	return fmt.Errorf("sqlitejournal: %s %q: %w", doing, j.path, err)
}
