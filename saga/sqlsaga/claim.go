package sqlsaga

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// Claim implements saga.Store. It looks without a transaction, so that an idle runner writes nothing, and then takes what
// it saw if nobody else has.
func (s *Store) Claim(ctx context.Context, c saga.Claim) ([]saga.Instance, error) {
	known, args := refs(c.Known)
	due, err := s.query(ctx, s.db, s.dialect.text(s.prefix, `SELECT `+columns+`, {now} FROM {prefix}sagas
		WHERE due_ms <= {now} AND (`+known+`) ORDER BY due_ms`)+page(c.Limit), args...)
	if err != nil || len(due) == 0 {
		return nil, wrap("claim", err)
	}
	claimed := due[:0]
	err = s.inTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, in := range due {
			n, err := affected(s.exec(ctx, tx, s.stmts.claim, c.Owner, millis(generous(c.Lease)), in.ID, in.Token))
			if err != nil {
				return err
			}
			if n == 1 {
				claimed = append(claimed, taken(in, c.Owner))
			}
		}
		return nil
	})
	if err != nil {
		return nil, wrap("claim", err)
	}
	return claimed, nil
}

// taken is the instance as the claim statement leaves it.
func taken(in saga.Instance, owner string) saga.Instance {
	if in.Owner != "" {
		in.Attempt++
		in.Doubt = true
	}
	in.Owner = owner
	in.Token++
	return in
}

// Commit implements saga.Store, with one transaction for all.
func (s *Store) Commit(ctx context.Context, ts []saga.Transition) ([]bool, error) {
	recorded := make([]bool, len(ts))
	err := s.inTx(ctx, func(ctx context.Context, tx *sql.Tx) (err error) {
		for i := range ts {
			if recorded[i], err = s.apply(ctx, tx, &ts[i]); err != nil {
				return fmt.Errorf("instance %q: %w", ts[i].ID, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, wrap("commit", err)
	}
	return recorded, nil
}

func (s *Store) apply(ctx context.Context, tx *sql.Tx, t *saga.Transition) (bool, error) {
	if t.Deliver != nil {
		return s.deliver(ctx, tx, t)
	}
	n, err := s.update(ctx, tx, t)
	if err != nil || n == 0 || t.Event == nil {
		return n == 1, err
	}
	e := t.Event
	_, err = s.exec(ctx, tx, s.stmts.event, e.Step, string(e.Direction), e.Attempt, string(e.Outcome), e.Error, e.Owner,
		e.Ended.Sub(e.Started).Milliseconds(), t.ID)
	return true, err
}

func (s *Store) update(ctx context.Context, tx *sql.Tx, t *saga.Transition) (int64, error) {
	p := t.Next
	if p == nil {
		return affected(tx.ExecContext(ctx, s.stmts.heartbeat, millis(generous(t.Hold)), t.ID, t.Token))
	}
	marks, err := encode(p.Marks)
	if err != nil {
		return 0, err
	}
	if s.dialect.lean && t.Hold > 0 {
		n, err := affected(s.exec(ctx, tx, s.stmts.step, p.Step, p.Attempt, p.Rejected, flag(p.Doubt), p.Error, string(p.State),
			p.Awaits, int64(p.Timer), marks, t.ID, t.Token, string(p.Status), string(p.Direction), p.Cause, millis(t.Hold)))
		if err != nil || n == 1 {
			return n, err
		}
	}
	args := append(make([]any, 0, 17), string(p.Status), string(p.Direction), p.Step, p.Attempt, p.Rejected, flag(p.Doubt), p.Cause,
		p.Error, string(p.State), p.Awaits, int64(p.Timer), marks)
	stmt := s.stmts.wait
	switch {
	case t.Hold > 0:
		stmt, args = s.stmts.hold, append(args, millis(t.Hold), millis(generous(t.Hold)))
	case !p.Status.Active():
		stmt = s.stmts.end
	case t.AfterLease:
		stmt = s.stmts.afterLease
	case p.Awaits != "":
		stmt, args = s.stmts.await, append(args, t.Seen, millis(t.Wait))
	default:
		args = append(args, millis(t.Wait))
	}
	return affected(s.exec(ctx, tx, stmt, append(args, t.ID, t.Token)...))
}

// generous is the lease to store, so that not every step has to extend it, which would be a change of an index.
func generous(lease time.Duration) time.Duration { return lease + lease/8 }

// deliver adds an event to those an instance has received.
func (s *Store) deliver(ctx context.Context, tx *sql.Tx, t *saga.Transition) (bool, error) {
	rows, err := collect(ctx, tx, s.stmts.received, func(rows *sql.Rows) (text string, err error) {
		var mail int
		return text, rows.Scan(&text, &mail)
	}, t.ID)
	if err != nil || len(rows) == 0 {
		return false, err
	}
	received, err := decode[json.RawMessage](rows[0])
	if err != nil {
		return false, err
	}
	if _, twice := received[t.Deliver.Name]; twice {
		return true, nil
	}
	if received == nil {
		received = map[string]json.RawMessage{}
	}
	received[t.Deliver.Name] = t.Deliver.Data
	text, err := encode(received)
	if err != nil {
		return false, err
	}
	_, err = tx.ExecContext(ctx, s.stmts.deliver, text, len(received), t.ID)
	return true, err
}

// List implements saga.Store.
func (s *Store) List(ctx context.Context, f saga.Filter) ([]saga.Instance, error) {
	where, args := []string{"id > ?"}, []any{f.After}
	if f.Definition != "" {
		where, args = append(where, "definition = ?"), append(args, f.Definition)
	}
	if len(f.Statuses) > 0 {
		where = append(where, "status IN ("+marks(len(f.Statuses))+")")
		for _, status := range f.Statuses {
			args = append(args, string(status))
		}
	}
	if len(f.Except) > 0 {
		known, more := refs(f.Except)
		where, args = append(where, "NOT ("+known+")"), append(args, more...)
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	ins, err := s.query(ctx, s.db, s.dialect.text(s.prefix, `SELECT `+columns+`, 0 FROM {prefix}sagas WHERE `+
		strings.Join(where, " AND ")+` ORDER BY id`+page(limit)), args...)
	return ins, wrap("list", err)
}

// refs is the condition that a row is of one of the definitions.
func refs(defs []saga.Ref) (string, []any) {
	var args []any
	conds := make([]string, len(defs))
	for i, d := range defs {
		conds[i] = "(definition = ? AND version = ?)"
		args = append(args, d.Name, d.Version)
	}
	return strings.Join(conds, " OR "), args
}

// query reads instances.
func (s *Store) query(ctx context.Context, db execer, query string, args ...any) ([]saga.Instance, error) {
	return collect(ctx, db, query, func(rows *sql.Rows) (in saga.Instance, err error) {
		var state []byte
		var due sql.NullInt64
		var created, updated, now int64
		var marks, received string
		var doubt, mail int
		err = rows.Scan(&in.ID, &in.Name, &in.Version, &in.Status, &in.Direction, &in.Step, &in.Attempt, &in.Rejected,
			&doubt, &in.Cause, &in.Error, &state, &in.Owner, &in.Parent, &in.Awaits, &in.Timer, &marks, &received, &mail,
			&in.Token, &due, &created, &updated, &now)
		if err != nil {
			return in, err
		}
		in.State, in.Doubt = state, doubt != 0
		in.Created, in.Updated = time.UnixMilli(created), time.UnixMilli(max(updated, now))
		if due.Valid {
			in.Due = time.UnixMilli(due.Int64)
		}
		if in.Marks, err = decode[saga.Mark](marks); err != nil {
			return in, fmt.Errorf("instance %q: marks: %w", in.ID, err)
		}
		if in.Received, err = decode[json.RawMessage](received); err != nil {
			return in, fmt.Errorf("instance %q: received: %w", in.ID, err)
		}
		return in, nil
	}, args...)
}

func (s *Store) history(ctx context.Context, id string) ([]saga.Event, error) {
	return collect(ctx, s.db, s.stmts.history, func(rows *sql.Rows) (e saga.Event, err error) {
		var started, ended int64
		err = rows.Scan(&e.Step, &e.Direction, &e.Attempt, &e.Outcome, &e.Error, &e.Owner, &started, &ended)
		e.Started, e.Ended = time.UnixMilli(started), time.UnixMilli(ended)
		return e, err
	}, id)
}

// collect reads all rows of a query.
func collect[T any](ctx context.Context, db execer, query string, scan func(*sql.Rows) (T, error), args ...any) (all []T, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// inTx runs fn in a transaction. Where the database is in this process its statements are quick, once the lock is had with
// the beginning of the transaction, and do without a watch over their context.
func (s *Store) inTx(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	return s.begin(ctx, fn)
}

// begin is inTx for tables that need not be there yet.
func (s *Store) begin(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if s.dialect.inProcess {
		ctx = context.WithoutCancel(ctx)
	}
	if err := fn(ctx, tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// wrap names the call; nil stays nil.
func wrap(call string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("sqlsaga: %s: %w", call, err)
}
