package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

var (
	// ErrFull says that MaxPending keys have a write that the source has not got, and RejectWhenFull is set. The call
	// changed nothing; it may be repeated later.
	ErrFull = errors.New("too many writes pending")
	// ErrUnwritten says that a Flush or a Close ended before the source had got every write. The text says how many are
	// left and what becomes of them, and the Cause is the writer's last error.
	ErrUnwritten = errors.New("not everything has been written")
)

// Write is one change for the source: the newest that has been accepted for its key.
type Write[K comparable, V any] struct {
	// Key is the key that was set or deleted.
	Key K
	// Value is what the key was set to; zero if Deleted.
	Value V
	// Deleted says that the key was deleted.
	Deleted bool
	// Seq grows with every write accepted, of whatever key; with a journal also from one process to the next. A source
	// that keeps it with the value can refuse an older write that arrives late, from a call that was given up on.
	Seq uint64
}

// WriteBehind is a cache that takes writes at once and brings them to the source later, in batches, the last one of
// each key only. Use it for values written often whose source may lag; not where the source must have the value when
// Set returns, nor where several processes write the same key. Make it with [NewWriteBehind] or [OpenWriteBehind];
// the zero value is not usable. It is safe for concurrent use. Close it with a deadline.
//
// Guarantees, within a process:
//
//   - Get returns what the last Set or Delete that returned has left, also when the cache has evicted it and
//     while the source is down. A deleted key is [ErrNotFound] until the source has been told, and then what the loader says.
//   - The source gets the writes of a key in order, never two at once, and at least the last of them. What lies between
//     may be left out. Nothing accepted is dropped: failed batches are repeated, in halves, so that one key that
//     fails delays only itself. A batch whose outcome is in doubt is repeated too, so the writer must be idempotent.
//   - At most MaxPending keys are pending. That is also how many a crash may lose, the last values of each, without a
//     journal. With one, whatever a Set or Delete that returned nil has accepted survives a crash, and is written by the
//     next process that opens the journal.
//
// Other processes that share a Store see a write when it has been shown to the Store. Should the Store drop the entry
// before the source has the value, readers may store the old one again; it goes when the source has been written.
type WriteBehind[K comparable, V any] struct {
	*Cache[K, V]

	loader  func(context.Context, K) (V, error)
	write   func(context.Context, []Write[K, V]) error
	cfg     WriteBehindConfig
	journal *journalist[K, V] // nil without a journal

	mu     sync.Mutex
	queue  *writeQueue[K, V]
	closed bool
	calls  sync.WaitGroup // of Set and Delete

	closing context.Context // ends when Close begins
	refuse  context.CancelFunc
	life    context.Context // ends when Close has drained or given up, and every call of the writer with it
	end     context.CancelFunc
	ended   chan struct{} // closed when the writing goroutine has ended

	closeDone chan struct{}
	closeErr  error
}

// NewWriteBehind returns a cache whose pending writes are kept in memory only. A crash loses them. write is called by one
// goroutine at a time, with at most MaxBatch writes of different keys, which it may keep; it returns nil when the source
// has got them all. An error that is Permanent parks the write it is about, see [WriteBehind.Refused]; any other is
// followed by another attempt, and so is a panic. NewWriteBehind panics on what [New] panics on, on a nil write and on a
// WriteBehindConfig that Validate refuses.
func NewWriteBehind[K comparable, V any](
	loader func(context.Context, K) (V, error), write func(context.Context, []Write[K, V]) error,
	cfg Config, behind WriteBehindConfig, opts ...Option,
) *WriteBehind[K, V] {
	b := newWriteBehind(loader, write, cfg, behind, 0, opts)
	go b.run()
	return b
}

func newWriteBehind[K comparable, V any](
	loader func(context.Context, K) (V, error), write func(context.Context, []Write[K, V]) error,
	cfg Config, behind WriteBehindConfig, inherited int, opts []Option,
) *WriteBehind[K, V] {
	if err := behind.Validate(); err != nil {
		panic(err)
	}
	if loader == nil || write == nil {
		panic(fmt.Errorf("cache %q: the loader or the writer is nil", cfg.Name))
	}
	behind = behind.withDefaults()
	b := &WriteBehind[K, V]{
		loader: loader, write: write, cfg: behind, queue: newWriteQueue[K, V](behind, inherited),
		ended: make(chan struct{}), closeDone: make(chan struct{}),
	}
	b.Cache = New(b.load, cfg, opts...)
	if source := b.batch; source != nil {
		b.batch = b.loadAll(source)
	}
	b.closing, b.refuse = context.WithCancel(context.Background())
	b.life, b.end = context.WithCancel(context.Background())
	return b
}

// load answers from what is pending, and else from the source. A load that looked before a write was accepted is voided
// when the write is shown to the cache.
func (b *WriteBehind[K, V]) load(ctx context.Context, key K) (V, error) {
	b.mu.Lock()
	p, ok := b.queue.table[key]
	if !ok || !p.dirty {
		b.mu.Unlock()
		return b.loader(ctx, key)
	}
	w := p.write
	b.mu.Unlock()
	if w.Deleted {
		return w.Value, ErrNotFound
	}
	return w.Value, nil
}

// loadAll is load for a batch loader.
func (b *WriteBehind[K, V]) loadAll(
	source func(context.Context, []K) (map[K]V, error),
) func(context.Context, []K) (map[K]V, error) {
	return func(ctx context.Context, keys []K) (map[K]V, error) {
		found := make(map[K]V, len(keys))
		ask := b.pendingAmong(keys, found)
		if len(ask) == 0 {
			return found, nil
		}
		loaded, err := source(ctx, ask)
		if err != nil {
			return nil, err
		}
		for _, key := range ask {
			if v, ok := loaded[key]; ok {
				found[key] = v
			}
		}
		return found, nil
	}
}

// pendingAmong adds what is pending of the keys to found, and returns the others.
func (b *WriteBehind[K, V]) pendingAmong(keys []K, found map[K]V) (others []K) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range keys {
		switch p, ok := b.queue.table[key]; {
		case !ok || !p.dirty:
			others = append(others, key)
		case !p.write.Deleted:
			found[key] = p.write.Value
		}
	}
	return others
}

// Set accepts value for key. When it has returned nil, the journal, if there is one, has it on disk, Get returns it, and
// the source will get it or a later one. It blocks while the journal records and, unless RejectWhenFull is set, while
// MaxPending keys are pending. Errors: ctx.Err() when ctx ended before the write was accepted, [ErrFull], [ErrClosed] and
// [ErrKey] leave everything as it was. [ErrJournal], also when ctx ends during the recording, is in doubt. With
// [ErrStore] the write is accepted and only other processes may see an older value for a while.
func (b *WriteBehind[K, V]) Set(ctx context.Context, key K, value V) error {
	return b.put(ctx, Write[K, V]{Key: key, Value: value})
}

// Delete accepts the deletion of key; Get returns [ErrNotFound] from then on. It blocks and fails as Set does.
func (b *WriteBehind[K, V]) Delete(ctx context.Context, key K) error {
	return b.put(ctx, Write[K, V]{Key: key, Deleted: true})
}

func (b *WriteBehind[K, V]) put(ctx context.Context, w Write[K, V]) error {
	if !reflexive(w.Key) {
		return b.fail(ErrKey, nil)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.enter(ctx, w.Key)
	if err != nil {
		return err
	}
	b.queue.seq++
	w.Seq = b.queue.seq
	if b.journal != nil {
		return b.putDurably(ctx, p, w)
	}
	b.queue.accept(p, w)
	return b.finish(ctx, p, w)
}

// enter returns the place of key once there is room for it. The lock is held on return, but not throughout.
func (b *WriteBehind[K, V]) enter(ctx context.Context, key K) (*pendingWrite[K, V], error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.closed {
		return nil, b.fail(ErrClosed, nil)
	}
	p := b.queue.enter(key)
	if p == nil {
		if b.cfg.RejectWhenFull {
			b.queue.rejected++
			return nil, b.fail(ErrFull, nil)
		}
		if err := b.awaitSlot(ctx); err != nil {
			return nil, err
		}
		p = b.queue.enterWith(key)
	}
	b.calls.Add(1)
	return p, nil
}

// awaitSlot releases the lock while it waits.
func (b *WriteBehind[K, V]) awaitSlot(ctx context.Context) error {
	b.mu.Unlock()
	waiting, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(b.closing, cancel)
	err := b.queue.slots.Acquire(waiting, 1)
	stop()
	cancel()
	b.mu.Lock()
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return b.fail(ErrClosed, nil)
	case b.closed:
		b.queue.slots.Release(1)
		return b.fail(ErrClosed, nil)
	}
	return nil
}

// finish shows an accepted write to the cache and leaves the queue. The lock is held on call and return.
func (b *WriteBehind[K, V]) finish(ctx context.Context, p *pendingWrite[K, V], w Write[K, V]) error {
	defer b.leave(p, w.Key)
	return b.show(ctx, p, w.Seq)
}

// leave ends a call of Set or Delete. The lock is held.
func (b *WriteBehind[K, V]) leave(p *pendingWrite[K, V], key K) {
	b.queue.leave(p, key)
	b.calls.Done()
}

// show returns when the cache has been told of the write of seq or a later one of the same place. One goroutine at a time
// tells it, always the newest, so that the cache ends with the newest too. The lock is held on call and return.
func (b *WriteBehind[K, V]) show(ctx context.Context, p *pendingWrite[K, V], seq uint64) error {
	for p.showing && p.shown < seq {
		b.awaitShown(p)
	}
	if p.shown >= seq {
		return p.showErr
	}
	p.showing = true
	defer func() {
		p.showing = false
		if p.idle != nil {
			close(p.idle)
			p.idle = nil
		}
	}()
	w := p.write
	p.showErr = b.tell(ctx, w)
	p.shown = w.Seq
	return p.showErr
}

// awaitShown releases the lock until whoever is telling the cache of p has done so.
func (b *WriteBehind[K, V]) awaitShown(p *pendingWrite[K, V]) {
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	idle := p.idle
	b.mu.Unlock()
	<-idle
	b.mu.Lock()
}

// tell releases the lock while it changes the cache. A store is not left half told because a caller has gone.
func (b *WriteBehind[K, V]) tell(ctx context.Context, w Write[K, V]) error {
	b.mu.Unlock()
	defer b.mu.Lock()
	ctx = context.WithoutCancel(ctx)
	if w.Deleted {
		return b.Cache.Delete(ctx, w.Key)
	}
	return b.Cache.Set(ctx, w.Key, w.Value)
}

// shared reports whether other processes read and fill the entries too.
func (b *WriteBehind[K, V]) shared() bool { return b.store != nil }

// run brings the writes to the source until Close.
func (b *WriteBehind[K, V]) run() {
	defer close(b.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for b.life.Err() == nil {
		batch, writes, wait := b.take()
		if batch != nil {
			b.settle(batch, writes, b.attempt(writes))
			continue
		}
		var due <-chan time.Time
		if wait >= 0 {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case <-b.queue.wake:
		case <-due:
		case <-b.life.Done():
		}
	}
}

func (b *WriteBehind[K, V]) take() ([]*pendingWrite[K, V], []Write[K, V], time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	batch, wait := b.queue.next()
	if batch == nil {
		return nil, nil, wait
	}
	writes := make([]Write[K, V], len(batch))
	for i, p := range batch {
		writes[i] = p.write
	}
	return batch, writes, 0
}

// attempt calls the writer, on a goroutine that it may end, and makes an error of whatever it does.
func (b *WriteBehind[K, V]) attempt(writes []Write[K, V]) error {
	ctx, cancel := b.life, func() {}
	if b.cfg.WriteTimeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, b.cfg.WriteTimeout)
	}
	defer cancel()
	result := make(chan error, 1)
	go func() {
		returned := false
		var err error
		defer func() {
			if !returned {
				err = writerPanic(recover(), debug.Stack())
			}
			result <- err
		}()
		err = b.write(ctx, append([]Write[K, V](nil), writes...))
		returned = true
	}()
	return <-result
}

func writerPanic(value any, stack []byte) error {
	switch value := value.(type) {
	case nil:
		return fmt.Errorf("the writer called runtime.Goexit\n\n%s", stack)
	case error:
		return fmt.Errorf("the writer panicked: %w\n\n%s", value, stack)
	default:
		return fmt.Errorf("the writer panicked: %v\n\n%s", value, stack)
	}
}

// settle notes what became of a batch.
func (b *WriteBehind[K, V]) settle(batch []*pendingWrite[K, V], writes []Write[K, V], err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.queue.fail(batch, writes, err)
		return
	}
	if b.shared() {
		b.showAgain(batch)
	}
	b.queue.succeed(batch, writes)
	if b.journal != nil {
		b.journal.remove(writes)
	}
}

// showAgain overwrites what other processes have stored from the source before it was written. While the store is away
// the entries stay as they are until their TTL.
func (b *WriteBehind[K, V]) showAgain(batch []*pendingWrite[K, V]) {
	for _, p := range batch {
		for p.showing {
			b.awaitShown(p)
		}
		p.shown = 0
		_ = b.show(b.life, p, 1) // counted as a failure of the store
	}
}
