package cache

import (
	"context"
	"fmt"
)

// Flush returns nil when the source has got everything accepted before the call. It does not wait for MaxDelay or for
// backoffs, only for a RetryAfter that the writer's error has asked for, and gives refused writes another attempt. It
// returns [ErrUnwritten] when ctx ends first, and when only refused writes are left; they stay pending. After Close it
// returns [ErrClosed].
func (b *WriteBehind[K, V]) Flush(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return b.fail(ErrClosed, nil)
	}
	f, cause := b.flush(ctx)
	if f == nil || f.left+f.refusals == 0 {
		return nil
	}
	return b.unwritten(f.left+f.refusals, f.refusals, "still pending", cause)
}

// flush waits for what is pending, if anything. The lock is held on call and return.
func (b *WriteBehind[K, V]) flush(ctx context.Context) (f *flush, cause error) {
	f = b.queue.flush()
	if f == nil {
		return nil, nil
	}
	b.mu.Unlock()
	select {
	case <-f.done:
	case <-ctx.Done():
		cause = ctx.Err()
	}
	b.mu.Lock()
	b.queue.forget(f)
	if f.left == 0 {
		return f, f.refused
	}
	if last := b.queue.lastErr; last != nil {
		cause = fmt.Errorf("%w; the writer's last error: %w", cause, last)
	}
	return f, cause
}

func (b *WriteBehind[K, V]) unwritten(left, refused int, fate string, cause error) error {
	return b.fail(ErrUnwritten, fmt.Errorf("%d left, of which %d refused, %s: %w", left, refused, fate, cause))
}

// Close refuses new writes, brings the pending ones to the source within the time that ctx leaves, ends the cache's
// goroutines and closes the embedded Cache. When ctx has ended it waits only for the writer and loaders to obey their
// contexts. It returns nil when nothing was left, and else [ErrUnwritten], whose text says how many: with a journal they
// are kept for the next start, without one they are lost. While the source is down and ctx never ends, neither does
// Close. The journal stays open. Later calls wait for the first one and return what it returned.
func (b *WriteBehind[K, V]) Close(ctx context.Context) error {
	b.mu.Lock()
	first := !b.closed
	b.closed = true
	b.mu.Unlock()
	if first {
		b.closeErr = b.close(ctx)
		close(b.closeDone)
		return b.closeErr
	}
	select {
	case <-b.closeDone:
		return b.closeErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *WriteBehind[K, V]) close(ctx context.Context) error {
	fate := "lost for want of a journal"
	b.refuse()
	if b.journal != nil {
		fate = "kept in the journal for the next start"
		defer context.AfterFunc(ctx, b.journal.cancel)()
	}
	b.calls.Wait()
	b.mu.Lock()
	_, cause := b.flush(ctx)
	b.mu.Unlock()
	b.end()
	<-b.ended
	if b.journal != nil {
		b.journal.close()
	}
	if closeErr := b.Cache.Close(); closeErr != nil {
		return closeErr
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.queue.dirty == 0 { // the last call of the writer may have ended well after ctx
		return nil
	}
	return b.unwritten(b.queue.dirty, b.queue.refusals(), fate, cause)
}

// Refused returns the keys whose write the source will not have, with the writer's error. Such a write stays pending,
// and Get returns it: until a newer one of the key replaces it, [WriteBehind.Discard] gives it up, or another attempt
// succeeds, which each Flush and each start makes. Watch Stats.Refused for it.
func (b *WriteBehind[K, V]) Refused() map[K]error {
	b.mu.Lock()
	defer b.mu.Unlock()
	refused := make(map[K]error)
	for key, p := range b.queue.table {
		if p.refused != nil {
			refused[key] = p.refused
		}
	}
	return refused
}

// Discard gives up the refused write of key, so that Get asks the source again. It does nothing when the key has none. Its
// error is the cache's, as from [Cache.Delete].
func (b *WriteBehind[K, V]) Discard(ctx context.Context, key K) error {
	b.mu.Lock()
	p, ok := b.queue.table[key]
	if b.closed || !ok || p.refused == nil {
		defer b.mu.Unlock()
		if b.closed {
			return b.fail(ErrClosed, nil)
		}
		return nil
	}
	if b.journal != nil {
		b.journal.remove([]Write[K, V]{p.write})
	}
	b.queue.clean(p)
	b.mu.Unlock()
	return b.Cache.Delete(ctx, key)
}
