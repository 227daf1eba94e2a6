package sqlsaga

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// Store keeps sagas in two tables of a database. It is safe for concurrent use by any number of processes. Create it with
// New; the database stays the caller's to close.
type Store struct {
	db      *sql.DB
	dialect Dialect
	prefix  string
	stmts   statements

	prepared prepared
}

var (
	_ saga.TxStore = (*Store)(nil)
	_ saga.Purger  = (*Store)(nil)
)

// statements are the texts with the prefix filled in.
type statements struct {
	create, claim, step, hold, wait, await, afterLease, end, heartbeat, event, received, deliver, load, history, ended,
	purgeEvents, purge string
}

// Option sets up a Store.
type Option func(*Store) error

var prefixForm = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,30}$`)

// WithPrefix sets what the names of the tables start with; the default is "backstay_". It is at most 31 lower-case
// letters, digits and underscores. Stores of different prefixes know nothing of each other.
func WithPrefix(prefix string) Option {
	return func(s *Store) error {
		if !prefixForm.MatchString(prefix) {
			return fmt.Errorf("sqlsaga: prefix %q: it must be 1 to 31 lower-case letters, digits or underscores, not starting with a digit", prefix)
		}
		s.prefix = prefix
		return nil
	}
}

// New makes a store on db. Call Migrate before the first use. It returns an error for a nil db, the zero Dialect or an option that refuses
// its argument; it does not touch the database.
func New(db *sql.DB, d Dialect, opts ...Option) (*Store, error) {
	if db == nil {
		return nil, errors.New("sqlsaga: the database is nil")
	}
	if d.name == "" {
		return nil, errors.New("sqlsaga: the dialect is empty: use SQLite, PostgreSQL or MySQL")
	}
	s := &Store{db: db, dialect: d, prefix: "backstay_"}
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("sqlsaga: an option is nil")
		}
		if err := opt(s); err != nil {
			return nil, err
		}
	}
	s.stmts = s.texts()
	return s, nil
}

// written are the columns that Create writes, and columns those that are read.
const (
	written = `id, definition, version, status, direction, step, attempt, rejected, doubt, cause, error, state, owner, parent,
	awaits, timer_ns, marks, received, mail`
	columns = written + `, token, due_ms, created_ms, updated_ms`
)

func (s *Store) texts() statements {
	text := func(query string) string { return s.dialect.text(s.prefix, query) }
	return statements{
		create: text(`{insert}{prefix}sagas (` + columns + `) VALUES (` + marks(19) + `, 1, {now} + ?, {now}, {now}){ignore}`),
		claim: text(`UPDATE {prefix}sagas SET attempt = attempt + CASE WHEN owner <> '' THEN 1 ELSE 0 END,
			doubt = CASE WHEN owner <> '' THEN 1 ELSE doubt END,
			owner = ?, token = token + 1, due_ms = {now} + ?, updated_ms = {now}
			WHERE id = ? AND token = ? AND due_ms <= {now}`),
		// A change that leaves the indexes alone: the direction stays, and the lease lasts long enough as it is.
		step: text(`UPDATE {prefix}sagas SET step = ?, attempt = ?, rejected = ?, doubt = ?, error = ?, state = ?,
			awaits = ?, timer_ns = ?, marks = ?, token = token + 1, updated_ms = {now}
			WHERE id = ? AND token = ? AND status = ? AND direction = ? AND cause = ? AND due_ms >= {now} + ?`),
		hold: text(`UPDATE {prefix}sagas SET ` + changed + `due_ms = CASE WHEN due_ms >= {now} + ? THEN due_ms ELSE {now} + ? END WHERE id = ? AND token = ?`),
		wait: text(`UPDATE {prefix}sagas SET ` + changed + `owner = '', due_ms = {now} + ? WHERE id = ? AND token = ?`),
		await: text(`UPDATE {prefix}sagas SET ` + changed + `owner = '',
			due_ms = CASE WHEN mail > ? THEN {now} ELSE {now} + ? END WHERE id = ? AND token = ?`),
		afterLease: text(`UPDATE {prefix}sagas SET ` + changed + `owner = '' WHERE id = ? AND token = ?`),
		end:        text(`UPDATE {prefix}sagas SET ` + changed + `owner = '', due_ms = NULL WHERE id = ? AND token = ?`),
		heartbeat:  text(`UPDATE {prefix}sagas SET due_ms = {now} + ?, updated_ms = {now} WHERE id = ? AND token = ?`),
		// The time is that of the change which the event belongs to: the clock may have moved on since.
		event: text(`INSERT INTO {prefix}saga_events (saga_id, token, step, direction, attempt, outcome, error, owner, started_ms, ended_ms)
			SELECT id, token - 1, ` + marks(6) + `, updated_ms - ?, updated_ms FROM {prefix}sagas WHERE id = ?`),
		received: text(`SELECT received, mail FROM {prefix}sagas WHERE id = ? AND status IN ('running', 'compensating', 'stuck'){lock}`),
		deliver: text(`UPDATE {prefix}sagas SET received = ?, mail = ?,
			due_ms = CASE WHEN owner = '' AND awaits <> '' AND due_ms IS NOT NULL THEN {now} ELSE due_ms END WHERE id = ?`),
		load: text(`SELECT ` + columns + `, 0 FROM {prefix}sagas WHERE id = ?`),
		history: text(`SELECT step, direction, attempt, outcome, error, owner, started_ms, ended_ms
			FROM {prefix}saga_events WHERE saga_id = ? ORDER BY token`),
		ended: text(`SELECT id FROM {prefix}sagas AS s WHERE status IN ('completed', 'compensated', 'aborted')
			AND updated_ms <= {now} - ? AND NOT EXISTS (SELECT 1 FROM {prefix}sagas AS p WHERE p.id = s.parent
				AND p.status IN ('running', 'compensating', 'stuck')) ORDER BY updated_ms LIMIT ?{skip}`),
		purgeEvents: text(`DELETE FROM {prefix}saga_events WHERE saga_id IN `),
		purge:       text(`DELETE FROM {prefix}sagas WHERE id IN `),
	}
}

// changed is what every change of an instance sets; the owner and the due time differ.
const changed = `status = ?, direction = ?, step = ?, attempt = ?, rejected = ?, doubt = ?, cause = ?, error = ?, state = ?,
	awaits = ?, timer_ns = ?, marks = ?, token = token + 1, updated_ms = {now}, `

// execer is a *sql.DB or *sql.Tx.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Create implements saga.Store.
func (s *Store) Create(ctx context.Context, in saga.Instance, lease time.Duration) (bool, error) {
	if err := s.prepare(ctx); err != nil {
		return false, fmt.Errorf("sqlsaga: create instance %q: %w", in.ID, err)
	}
	if stmt := s.prepared.all[s.stmts.create]; stmt != nil {
		return s.create(ctx, stmt.ExecContext, in, lease)
	}
	return s.create(ctx, func(ctx context.Context, args ...any) (sql.Result, error) {
		return s.db.ExecContext(ctx, s.stmts.create, args...)
	}, in, lease)
}

// create writes an instance by exec, which runs the statement.
func (s *Store) create(
	ctx context.Context, exec func(ctx context.Context, args ...any) (sql.Result, error), in saga.Instance, lease time.Duration,
) (bool, error) {
	if in.Owner == "" {
		lease = 0
	}
	marks, err := encode(in.Marks)
	if err != nil {
		return false, err
	}
	received, err := encode(in.Received)
	if err != nil {
		return false, err
	}
	n, err := affected(exec(ctx, in.ID, in.Name, in.Version, string(in.Status), string(in.Direction),
		in.Step, in.Attempt, in.Rejected, flag(in.Doubt), in.Cause, in.Error, string(in.State), in.Owner, in.Parent, in.Awaits,
		int64(in.Timer), marks, received, len(in.Received), millis(generous(lease))))
	if err != nil {
		return false, fmt.Errorf("sqlsaga: create instance %q: %w", in.ID, err)
	}
	return n == 1, nil
}

// StartTx is saga.Start inside the caller's transaction: the instance exists if and only if tx is committed. It is
// idempotent by id like Start, with the same ErrExists. Call Runner.Notify after the commit, or the runners find the instance when they
// poll.
func StartTx[State any](ctx context.Context, s *Store, tx *sql.Tx, d *saga.Definition[State], id string, state State) error {
	in, err := d.NewInstance(id, state)
	if err != nil {
		return err
	}
	created, err := s.create(ctx, func(ctx context.Context, args ...any) (sql.Result, error) {
		return tx.ExecContext(ctx, s.stmts.create, args...)
	}, in, 0)
	if created || err != nil {
		return err
	}
	ins, err := s.query(ctx, tx, s.stmts.load, id)
	if err == nil && len(ins) == 1 && ins[0].Name != in.Name {
		err = fmt.Errorf("sqlsaga: start of instance %q: %w: %q", id, saga.ErrExists, ins[0].Name)
	}
	return err
}

// Load implements saga.Store.
func (s *Store) Load(ctx context.Context, id string) (saga.Instance, []saga.Event, error) {
	fail := func(err error) (saga.Instance, []saga.Event, error) {
		return saga.Instance{}, nil, fmt.Errorf("sqlsaga: load instance %q: %w", id, err)
	}
	ins, err := s.query(ctx, s.db, s.stmts.load, id)
	switch {
	case err != nil:
		return fail(err)
	case len(ins) == 0:
		return fail(saga.ErrNotFound)
	}
	history, err := s.history(ctx, id)
	if err != nil {
		return fail(err)
	}
	return ins[0], history, nil
}

// Purge implements saga.Purger, in one transaction. Call it regularly, or set Config.Retention of a saga.Runner, with an age beyond any
// repetition of the calls that start them: a purged ID can be started anew.
func (s *Store) Purge(ctx context.Context, age time.Duration, limit int) (int, error) {
	var ids []any
	err := s.inTx(ctx, func(ctx context.Context, tx *sql.Tx) (err error) {
		ids, err = collect(ctx, tx, s.stmts.ended, func(rows *sql.Rows) (any, error) {
			var id string
			err := rows.Scan(&id)
			return id, err
		}, millis(age), limit)
		for some := range slices.Chunk(ids, 100) {
			for _, stmt := range []string{s.stmts.purgeEvents, s.stmts.purge} {
				if _, err := tx.ExecContext(ctx, s.dialect.number(stmt+"("+marks(len(some))+")"), some...); err != nil {
					return err
				}
			}
		}
		return err
	})
	if err != nil {
		return 0, wrap("purge", err)
	}
	return len(ids), nil
}

// affected is the number of rows a statement changed.
func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// flag is how a truth value is kept.
func flag(v bool) int {
	if v {
		return 1
	}
	return 0
}

// encode is the JSON form of a map; nothing for an empty one.
func encode[V any](m map[string]V) (string, error) {
	if len(m) == 0 {
		return "", nil
	}
	data, err := json.Marshal(m)
	return string(data), err
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
func millis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
