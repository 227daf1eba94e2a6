package cache

import (
	"context"
	"fmt"
)

// WriteThrough is a [Cache] whose Set writes to the source first. Use it when all writes go through caches: then reads
// find what was written without a load. Delete only removes the entry, as that of Cache does: delete from the source
// first. Make it with [NewWriteThrough] (the zero value is not usable) and Close it when done. It is safe for
// concurrent use.
type WriteThrough[K comparable, V any] struct {
	*Cache[K, V]
	write func(context.Context, K, V) error
}

// NewWriteThrough returns a cache in front of loader and write, which must return nil only after the source has the
// value. It panics as [New] does, and needs to be closed as that does.
func NewWriteThrough[K comparable, V any](
	loader func(context.Context, K) (V, error), write func(context.Context, K, V) error, cfg Config, opts ...Option,
) *WriteThrough[K, V] {
	if write == nil {
		panic(fmt.Errorf("cache %q: write is nil", cfg.Name))
	}
	return &WriteThrough[K, V]{Cache: New(loader, cfg, opts...), write: write}
}

// Set writes value to the source, on the caller's goroutine and with ctx, and then keeps it. The error of write is
// returned as it is; the entry is then removed, because the source may have the value. Of writes of a key at the
// same time, in whatever processes, at most the only one leaves its entry: who cannot tell whether it was the last
// removes it. [ErrStore] says that the source has the value, but that the store may hold an older one, until it
// answers again or the TTL ends. So may it when the process dies, or when a write that failed reaches the source later.
func (w *WriteThrough[K, V]) Set(ctx context.Context, key K, value V) (err error) {
	if !reflexive(key) {
		return w.fail(ErrKey, nil)
	}
	if w.closed.Load() {
		return w.fail(ErrClosed, nil)
	}
	token := w.flights.claim(key)
	lease := w.prepare(ctx, key)
	var made *entry[V]
	defer func() { // also when write panics
		if w.store != nil && made == nil {
			failure := w.discard(ctx, key)
			if err == nil {
				err = w.doubt(failure)
			}
		}
		w.flights.settleWrite(token, made)
	}()
	if err := w.write(ctx, key, value); err != nil {
		return err
	}
	written := w.keep(key, value, w.clock.now(), 0)
	if w.store == nil || w.publish(ctx, lease, written) {
		made = written
	}
	return nil
}

// prepare removes the entry from the store and takes the right to fill it, or returns nil.
func (w *WriteThrough[K, V]) prepare(ctx context.Context, key K) Lease[V] {
	if w.store == nil || w.store.Delete(ctx, key) != nil {
		return nil
	}
	g, err := w.store.Lease(ctx, key, 0)
	if err != nil {
		return nil
	}
	return g.Lease
}

// publish reports whether the store has taken the entry.
func (w *WriteThrough[K, V]) publish(ctx context.Context, lease Lease[V], written *entry[V]) bool {
	if lease == nil {
		return false
	}
	stored, err := lease.Fill(ctx, portable(written))
	return stored && err == nil
}

// discard removes what may be older than the source. ctx may have ended.
func (w *WriteThrough[K, V]) discard(ctx context.Context, key K) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	return w.store.Delete(ctx, key)
}
