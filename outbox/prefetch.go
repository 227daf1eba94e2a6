package outbox

import (
	"context"
	"time"
)

// Prefetcher is what a Queue may have in addition, so that a relay reads a batch while the one before it is being settled.
type Prefetcher interface {
	// FetchExcept is Fetch without the messages in hand, which the caller is about to settle: of a lane it returns those behind
	// them, and no lane without its head. It runs beside Settle, on a connection of its own.
	FetchExcept(ctx context.Context, l Leases, inHand []Record, limit int) ([]Record, error)
}

// ahead is a batch read while the one before it was being settled. It is published only when that one is settled, so that a relay
// that dies repeats one batch and not two.
type ahead struct {
	leases  Leases // under which it was read
	records []Record
	done    chan struct{}
	cancel  context.CancelFunc
}

// prefetch begins to read the batch behind records, or returns nil. It does so while there is a backlog and the publisher takes
// everything: a message that failed holds back its lane, which is not known to the store yet.
func (w *worker) prefetch(ctx context.Context, cfg RelayConfig, records, published []Record) *ahead {
	queue, ok := w.queue.(Prefetcher)
	if !ok || len(records) < cfg.Batch || len(published) < len(records) || ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Lease)
	a := &ahead{leases: w.leases, done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(a.done)
		defer cancel()
		a.records, _ = queue.FetchExcept(ctx, a.leases, published, cfg.Batch) // trouble is for the fetch that follows
	}()
	return a
}

// wait ends the reading, at once unless the batch before it was settled, and returns what may be published next or nil.
func (a *ahead) wait(settled bool) *ahead {
	if a == nil {
		return nil
	}
	if !settled {
		a.cancel()
	}
	<-a.done
	if !settled || len(a.records) == 0 {
		return nil
	}
	return a
}

// fetch returns what was read ahead, unless the leases have changed since, or reads a batch.
func (w *worker) fetch(ctx context.Context, cfg RelayConfig) ([]Record, error) {
	a := w.ahead
	w.ahead = nil
	if a != nil && a.leases == w.leases && time.Since(w.renewed) < cfg.Lease {
		return a.records, nil
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Lease)
	defer cancel()
	return w.queue.Fetch(ctx, w.leases, cfg.Batch)
}
