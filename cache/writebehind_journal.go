package cache

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrJournal says that the [Journal] failed, or that the caller's context ended while it was recording. Whether the write
// is recorded is in doubt. It may be repeated, as long as no later one of the key has been accepted.
var ErrJournal = errors.New("journal failed")

// Journal keeps what a [WriteBehind] has accepted and the source has not got, over the end of the process: the
// interface that a driver implements. It belongs to one WriteBehind at a time, which a driver enforces. Both methods
// are called by one goroutine at a time and obey ctx. Whoever made the journal closes it, after the WriteBehind.
type Journal[K comparable, V any] interface {
	// Replay returns the writes that have been recorded and not removed, one for each key, in the order of Seq, and the
	// highest Seq that has ever been recorded.
	Replay(ctx context.Context) (pending []Write[K, V], last uint64, err error)
	// Commit records the writes of add, and removes those of written, in one transaction that is durable when Commit
	// returns nil. A record replaces the older one of its key. A write of written is removed only if the record of its
	// key still has its Seq. Seqs ascend within add and from call to call, except that what a failed Commit was to record
	// may come again.
	Commit(ctx context.Context, add, written []Write[K, V]) error
}

// OpenWriteBehind is [NewWriteBehind] with a journal, whose records it first takes over: they are pending, and their keys
// read accordingly, when it returns. Calls that wait for the journal together share one Commit. A process that dies
// during a batch leaves the batch in doubt: it is repeated by the next. The error is [ErrJournal] with the journal's own.
func OpenWriteBehind[K comparable, V any](
	ctx context.Context, journal Journal[K, V],
	loader func(context.Context, K) (V, error), write func(context.Context, []Write[K, V]) error,
	cfg Config, behind WriteBehindConfig, opts ...Option,
) (*WriteBehind[K, V], error) {
	if journal == nil {
		panic(fmt.Errorf("cache %q: journal is nil", cfg.Name))
	}
	pending, last, err := journal.Replay(ctx)
	if err != nil {
		return nil, &Error{Name: cfg.Name, Kind: ErrJournal, Cause: err}
	}
	b := newWriteBehind(loader, write, cfg, behind, len(pending), opts)
	for _, w := range pending {
		p := b.queue.enter(w.Key)
		b.queue.accept(p, w)
		b.queue.leave(p, w.Key)
	}
	b.queue.seq = last
	b.journal = newJournalist(b, journal)
	go b.run()
	go b.journal.run()
	return b, nil
}

// journalist lets concurrent calls share the journal's transactions. The lock of the WriteBehind guards what it gathers.
type journalist[K comparable, V any] struct {
	behind  *WriteBehind[K, V]
	journal Journal[K, V]

	open    *record[K, V] // takes writes until its commit begins; nil when there is none
	written []Write[K, V] // to be removed

	wake     chan struct{}
	closing  chan struct{}
	ended    chan struct{}
	ctx      context.Context // ends when Close gives up
	cancel   context.CancelFunc
	failures uint64
}

// record is what one commit adds. errs is there once done is closed.
type record[K comparable, V any] struct {
	places []*pendingWrite[K, V]
	writes []Write[K, V]
	errs   []error
	done   chan struct{}
}

func newJournalist[K comparable, V any](b *WriteBehind[K, V], journal Journal[K, V]) *journalist[K, V] {
	j := &journalist[K, V]{
		behind: b, journal: journal,
		wake: make(chan struct{}, 1), closing: make(chan struct{}), ended: make(chan struct{}),
	}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	return j
}

// putDurably is put with a journal. When ctx ends first, the call goes on without its caller. The lock is held on call
// and return.
func (b *WriteBehind[K, V]) putDurably(ctx context.Context, p *pendingWrite[K, V], w Write[K, V]) error {
	r, i := b.journal.join(p, w)
	b.mu.Unlock()
	select {
	case <-r.done:
		b.mu.Lock()
		return b.conclude(ctx, r, i)
	case <-ctx.Done():
		go func() {
			<-r.done
			b.mu.Lock()
			defer b.mu.Unlock()
			_ = b.conclude(ctx, r, i) // nobody is left to be told
		}()
		b.mu.Lock()
		return b.fail(ErrJournal, ctx.Err())
	}
}

// conclude ends a call whose record has been tried.
func (b *WriteBehind[K, V]) conclude(ctx context.Context, r *record[K, V], i int) error {
	if err := r.errs[i]; err != nil {
		b.leave(r.places[i], r.writes[i].Key)
		return b.fail(ErrJournal, err)
	}
	return b.finish(ctx, r.places[i], r.writes[i])
}

// join adds a write to the next commit.
func (j *journalist[K, V]) join(p *pendingWrite[K, V], w Write[K, V]) (r *record[K, V], i int) {
	if j.open == nil {
		j.open = &record[K, V]{done: make(chan struct{})}
		j.signal()
	}
	j.open.places = append(j.open.places, p)
	j.open.writes = append(j.open.writes, w)
	return j.open, len(j.open.writes) - 1
}

// remove lets the next commit remove what has been written, or will never be.
func (j *journalist[K, V]) remove(written []Write[K, V]) {
	j.written = append(j.written, written...)
	j.signal()
}

func (j *journalist[K, V]) signal() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// close commits what is left and ends the goroutine.
func (j *journalist[K, V]) close() {
	close(j.closing)
	<-j.ended
	j.cancel()
}

// run commits what has gathered during the commit before. Removals that fail are repeated with the next commit, or after
// a while.
func (j *journalist[K, V]) run() {
	defer close(j.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	failed := 0
	for {
		var again <-chan time.Time
		if failed > 0 {
			timer.Reset(j.behind.queue.backOff(failed))
			again = timer.C
		}
		select {
		case <-j.wake:
		case <-again:
		case <-j.closing:
			j.commit() // no call is waiting: only removals are left
			return
		}
		if j.commit() {
			failed = 0
		} else {
			failed++
		}
	}
}

// commit reports whether no removal is left over.
func (j *journalist[K, V]) commit() bool {
	b := j.behind
	b.mu.Lock()
	r, written := j.open, j.written
	j.open, j.written = nil, nil
	b.mu.Unlock()
	if r == nil {
		r = &record[K, V]{done: make(chan struct{})}
	}
	if len(r.writes)+len(written) == 0 {
		return true
	}
	r.errs = make([]error, len(r.writes))
	failures, removed := j.store(r, written)

	b.mu.Lock()
	defer b.mu.Unlock()
	j.failures += failures
	for i, p := range r.places {
		if r.errs[i] == nil {
			b.queue.accept(p, r.writes[i])
		}
	}
	close(r.done)
	if !removed {
		j.written = append(written, j.written...)
	}
	return removed
}

// store commits everything at once or, where that fails, each write by itself, so that one that cannot be encoded fails
// alone.
func (j *journalist[K, V]) store(r *record[K, V], written []Write[K, V]) (failures uint64, removed bool) {
	err := j.journal.Commit(j.ctx, r.writes, written)
	if err == nil {
		return 0, true
	}
	if len(r.writes) == 1 && len(written) == 0 {
		r.errs[0] = err
		return 1, true
	}
	failures = 1
	for i := range r.writes {
		if r.errs[i] = j.journal.Commit(j.ctx, r.writes[i:i+1], nil); r.errs[i] != nil {
			failures++
		}
	}
	return failures, len(written) == 0
}
