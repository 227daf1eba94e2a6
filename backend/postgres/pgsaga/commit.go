package pgsaga

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backstay-go/backstay/saga"
)

// Commit implements saga.Store: in one round trip, which is one commit, unless an event is delivered.
func (s *Store) Commit(ctx context.Context, ts []saga.Transition) ([]bool, error) {
	recorded := make([]bool, len(ts))
	w, err := s.sort(ts)
	if err == nil {
		err = s.write(ctx, w, recorded)
	}
	if err != nil {
		return nil, wrap("commit", err)
	}
	return recorded, nil
}

func (s *Store) write(ctx context.Context, w *work, recorded []bool) error {
	switch {
	case len(w.deliveries) > 0:
		return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return s.apply(ctx, tx, w, recorded) })
	case len(w.lots) == 1 && len(w.lots[0].rows) == 1 && !w.wakes:
		l := &w.lots[0]
		tag, err := s.pool.Exec(ctx, l.one, l.args(l.rows)...)
		recorded[l.places[0]] = tag.RowsAffected() == 1
		return err
	default:
		return s.pool.SendBatch(ctx, s.batch(w, recorded)).Close()
	}
}

// apply writes within a transaction.
func (s *Store) apply(ctx context.Context, tx pgx.Tx, w *work, recorded []bool) (err error) {
	if len(w.lots) > 0 {
		if err := tx.SendBatch(ctx, s.batch(w, recorded)).Close(); err != nil {
			return err
		}
	}
	for _, d := range w.deliveries {
		if recorded[d.place], err = s.deliver(ctx, tx, d.t); err != nil {
			return err
		}
	}
	return nil
}

// work is what a commit has to do, in the order in which it locks rows: by ID, so that commits do not lock each other out.
type work struct {
	lots       []lot
	deliveries []delivery
	wakes      bool // something is left due to nobody
}

// lot is a statement's share of the changes: no instance is twice in it.
type lot struct {
	source
	one, many string
	rows      []row
	places    []int // of the rows among the transitions
}

type delivery struct {
	t     *saga.Transition
	place int
}

// sort divides transitions into lots.
func (s *Store) sort(ts []saga.Transition) (*work, error) {
	w := &work{}
	if len(ts) == 1 && ts[0].Deliver == nil {
		return w, s.add(w, &ts[0], 0)
	}
	order := make([]int, len(ts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(ts[a].ID, ts[b].ID) })
	for _, i := range order {
		if ts[i].Deliver != nil {
			w.deliveries = append(w.deliveries, delivery{&ts[i], i})
		} else if err := s.add(w, &ts[i], i); err != nil {
			return nil, fmt.Errorf("instance %q: %w", ts[i].ID, err)
		}
	}
	return w, nil
}

// add puts a transition into the first lot of its statement that does not have the instance yet.
func (s *Store) add(w *work, t *saga.Transition, place int) error {
	l := lot{source: beats, one: s.text.beatOne, many: s.text.beatMany}
	r, err := beat(t), error(nil)
	if t.Next != nil {
		l = lot{source: changes, one: s.text.commitOne, many: s.text.commitMany}
		r, err = change(t)
		w.wakes = w.wakes || r.numbers[1] == wait && t.Wait == 0 && s.dueToNotify()
	}
	if err != nil {
		return err
	}
	for i := range w.lots {
		has := &w.lots[i]
		if has.one == l.one && has.last() < t.ID {
			has.rows, has.places = append(has.rows, r), append(has.places, place)
			return nil
		}
	}
	l.rows, l.places = []row{r}, []int{place}
	w.lots = append(w.lots, l)
	return nil
}

// last is the ID of the last row, which is the highest.
func (l *lot) last() string { return string(l.id(len(l.rows) - 1)) }

func (l *lot) id(i int) word { return l.rows[i].words[0] }

func beat(t *saga.Transition) row {
	return row{numbers: [maxNumbers]number{number(t.Token), millis(t.Hold)}, words: [maxWords]word{word(t.ID)}}
}

func change(t *saga.Transition) (row, error) {
	p := t.Next
	marks, err := encode(p.Marks)
	kind, pause, seen := kindOf(t)
	r := row{
		numbers: [maxNumbers]number{
			number(t.Token), kind, millis(pause), seen, number(p.Attempt), number(p.Rejected), flag(p.Doubt), number(p.Timer),
		},
		words: [maxWords]word{
			word(t.ID), word(p.Status), word(p.Direction), word(p.Step), word(p.Cause), word(p.Error), word(p.State), word(p.Awaits), marks,
		},
	}
	if e := t.Event; e != nil {
		r.numbers[8], r.numbers[9] = number(e.Attempt), number(e.Ended.Sub(e.Started).Milliseconds())
		r.words[9], r.words[10], r.words[11] = word(e.Step), word(e.Direction), word(e.Outcome)
		r.words[12], r.words[13] = word(e.Error), word(e.Owner)
	}
	return r, err
}

// kindOf says what becomes of the lease.
func kindOf(t *saga.Transition) (kind number, pause time.Duration, seen number) {
	switch {
	case t.Hold > 0:
		return hold, t.Hold, always
	case !t.Next.Status.Active():
		return end, 0, always
	case t.AfterLease:
		return afterLease, 0, always
	case t.Next.Awaits != "":
		return wait, t.Wait, number(t.Seen)
	default:
		return wait, t.Wait, always
	}
}

// batch is the lots as one message to the server, which takes it as one transaction.
func (s *Store) batch(w *work, recorded []bool) *pgx.Batch {
	b := &pgx.Batch{}
	if slices.ContainsFunc(w.lots, func(l lot) bool { return len(l.rows) > 1 }) {
		b.Queue(s.text.inOrder)
	}
	for i := range w.lots {
		l := &w.lots[i]
		text := l.many
		if len(l.rows) == 1 {
			text = l.one
		}
		b.Queue(text, l.args(l.rows)...).Query(func(rows pgx.Rows) error { return l.note(rows, recorded) })
	}
	if w.wakes {
		b.Queue(s.text.notify)
	}
	return b
}

// note enters which of the rows the statement has changed.
func (l *lot) note(rows pgx.Rows, recorded []bool) error {
	for rows.Next() {
		id := word(rows.RawValues()[0]) // the text of a text is the same in both formats
		at, found := slices.BinarySearchFunc(l.rows, id, func(r row, id word) int { return cmp.Compare(r.words[0], id) })
		if found {
			recorded[l.places[at]] = true
		}
	}
	return rows.Err()
}

// deliver adds an event to those an instance has received.
func (s *Store) deliver(ctx context.Context, tx pgx.Tx, t *saga.Transition) (bool, error) {
	rows, err := tx.Query(ctx, s.text.received, t.ID)
	if err != nil {
		return false, err
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(texts) == 0 {
		return false, err
	}
	received, err := decode[json.RawMessage](texts[0])
	if err != nil {
		return false, fmt.Errorf("instance %q: received: %w", t.ID, err)
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
	b := &pgx.Batch{}
	b.Queue(s.text.deliver, t.ID, &text, len(received))
	if s.dueToNotify() {
		b.Queue(s.text.notify)
	}
	return true, tx.SendBatch(ctx, b).Close()
}
