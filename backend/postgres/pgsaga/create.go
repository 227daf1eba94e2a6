package pgsaga

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/backstay-go/backstay/saga"
)

// maxShare bounds how many instances one commit creates.
const maxShare = 64

// creating is who waits to create an instance while another creation is under way.
type creating struct {
	mu    sync.Mutex
	busy  bool
	queue []*creation
}

// creation is an instance on its way to the tables.
type creation struct {
	ctx   context.Context
	row   row
	free  bool // nobody has it when it is created
	reply chan created
}

// created is what became of it.
type created struct {
	ok  bool
	err error
}

// Create implements saga.Store. What comes while another call is under way shares the next commit.
func (s *Store) Create(ctx context.Context, in saga.Instance, lease time.Duration) (bool, error) {
	r, err := creationOf(in, lease)
	if err != nil {
		return false, createError(in.ID, err)
	}
	c := &creation{ctx: ctx, row: r, free: in.Owner == ""}
	if s.creating.wait(c) {
		ok, err := s.createAlone(c)
		s.handOn()
		return ok, createError(in.ID, err)
	}
	select {
	case a := <-c.reply:
		return a.ok, createError(in.ID, a.err)
	case <-ctx.Done():
		s.creating.leave(c)
		return false, createError(in.ID, context.Cause(ctx))
	}
}

func createError(id string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pgsaga: create instance %q: %w", id, err)
}

func creationOf(in saga.Instance, lease time.Duration) (row, error) {
	if in.Owner == "" {
		lease = 0
	}
	marks, err := encode(in.Marks)
	if err != nil {
		return row{}, err
	}
	received, err := encode(in.Received)
	return row{
		numbers: [maxNumbers]number{
			number(in.Version), number(in.Attempt), number(in.Rejected), flag(in.Doubt), number(in.Timer), number(len(in.Received)),
			millis(lease),
		},
		words: [maxWords]word{
			word(in.ID), word(in.Name), word(in.Status), word(in.Direction), word(in.Step), word(in.Cause), word(in.Error),
			word(in.State), word(in.Owner), word(in.Parent), word(in.Awaits), marks, received,
		},
	}, err
}

// wait queues c, or reports that it need not wait: then handOn has to be called.
func (q *creating) wait(c *creation) (free bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.busy {
		q.busy = true
		return true
	}
	c.reply = make(chan created, 1)
	q.queue = append(q.queue, c)
	return false
}

// leave takes c out of the queue, unless it is under way.
func (q *creating) leave(c *creation) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.queue, c); i >= 0 {
		q.queue = slices.Delete(q.queue, i, i+1)
	}
}

// next takes a share out of the queue, in the order of the IDs, so that two nodes that create the same do not lock each other out.
func (q *creating) next() (share []*creation) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.queue), maxShare)
	if n == 0 {
		q.busy = false
		return nil
	}
	share = slices.Clone(q.queue[:n])
	q.queue = slices.Delete(q.queue, 0, n)
	slices.SortStableFunc(share, func(a, b *creation) int { return cmp.Compare(a.row.words[0], b.row.words[0]) })
	return share
}

// handOn has those created who wait. It is not done on the goroutine of a caller, who may not want to wait so long.
func (s *Store) handOn() {
	if share := s.creating.next(); share != nil {
		go func() {
			for ; share != nil; share = s.creating.next() {
				s.createAll(share)
			}
		}()
	}
}

func (s *Store) createAll(share []*creation) {
	var all []created
	if len(share) > 1 {
		all = s.createShare(share)
	}
	for i, c := range share {
		if all != nil {
			c.reply <- all[i]
			continue
		}
		ok, err := s.createAlone(c) // in a share, one that the database does not take would spoil the others
		c.reply <- created{ok, err}
	}
}

func (s *Store) createAlone(c *creation) (ok bool, err error) {
	args := creations.args([]row{c.row})
	if !c.free || !s.dueToNotify() {
		tag, err := s.pool.Exec(c.ctx, s.text.createOne, args...)
		return tag.RowsAffected() == 1, err
	}
	b := &pgx.Batch{}
	b.Queue(s.text.createOne, args...).Exec(func(tag pgconn.CommandTag) error { ok = tag.RowsAffected() == 1; return nil })
	b.Queue(s.text.notify)
	err = s.pool.SendBatch(c.ctx, b).Close()
	return ok && err == nil, err
}

// createShare makes one commit; nil means that it failed. Of several with one ID, the first in the queue gets it.
func (s *Store) createShare(share []*creation) []created {
	ctx, cancel := s.shareContext(share)
	defer cancel()
	rows := make([]row, len(share))
	free := false
	for i, c := range share {
		rows[i] = c.row
		free = free || c.free
	}
	all := make([]created, len(share))
	b := &pgx.Batch{}
	b.Queue(s.text.createMany, creations.args(rows)...).Query(func(got pgx.Rows) error {
		for got.Next() {
			id := word(got.RawValues()[0])
			if i := slices.IndexFunc(rows, func(r row) bool { return r.words[0] == id }); i >= 0 {
				all[i].ok = true
			}
		}
		return got.Err()
	})
	if free && s.dueToNotify() {
		b.Queue(s.text.notify)
	}
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil
	}
	return all
}

// shareContext ends when nobody waits for the share any more.
func (s *Store) shareContext(share []*creation) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(share[0].ctx))
	var waiting atomic.Int64
	waiting.Store(int64(len(share)))
	stops := make([]func() bool, len(share))
	for i, c := range share {
		stops[i] = context.AfterFunc(c.ctx, func() {
			if waiting.Add(-1) == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}

// StartTx is saga.Start inside the caller's transaction: the instance exists if and only if tx is committed, which also wakes the runners
// that Listen serves. It is idempotent by id like Start, with the same ErrExists.
func StartTx[State any](ctx context.Context, s *Store, tx pgx.Tx, d *saga.Definition[State], id string, state State) error {
	in, err := d.NewInstance(id, state)
	if err != nil {
		return err
	}
	r, err := creationOf(in, 0)
	if err != nil {
		return createError(id, err)
	}
	name := ""
	b := &pgx.Batch{}
	b.Queue(s.text.createOne, creations.args([]row{r})...)
	b.Queue(s.text.name, id).QueryRow(func(row pgx.Row) error { return row.Scan(&name) })
	if s.dueToNotify() {
		b.Queue(s.text.notify)
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return createError(id, err)
	}
	if name != in.Name {
		return createError(id, fmt.Errorf("%w: %q", saga.ErrExists, name))
	}
	return nil
}
