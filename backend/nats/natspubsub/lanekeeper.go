package natspubsub

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/pubsub"
)

// tickMost is how long a member does not look at the lanes of others, if nobody tells it to.
const tickMost = time.Second

// tick is that for the member's lease.
func (r *laneReceiver) tick() time.Duration { return min(tickMost, r.sub.Lease/8) }

// writeTimeout bounds a write of records; one that takes as long is tried again while the lease lasts.
func (r *laneReceiver) writeTimeout() time.Duration {
	return min(max(r.sub.Lease/4, 500*time.Millisecond), settleTimeout)
}

// keep writes the records, shares the lanes with the other members and makes the readers, until ctx ends.
func (r *laneReceiver) keep(ctx context.Context) {
	defer close(r.kept)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.poke:
		case <-r.status:
			if r.driver.conn.IsClosed() {
				signal(r.wake) // Receive says so
				return
			}
		}
		if err := r.round(ctx); err != nil && ctx.Err() == nil {
			r.fail(err)
			return
		}
		timer.Reset(r.nextRound())
	}
}

// fail ends the member: the topic is gone.
func (r *laneReceiver) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failure = r.wrap(err)
	for _, l := range r.lanes {
		l.drop()
	}
	signal(r.wake)
}

func (r *laneReceiver) round(ctx context.Context) error {
	tick := r.expire()
	if !r.driver.conn.IsConnected() {
		return nil
	}
	if tick {
		if err := r.tend(ctx); err != nil {
			return err
		}
	}
	if err := r.write(ctx); err != nil {
		return err
	}
	return r.read(ctx)
}

// expire ends leases that have run out, of messages and of lanes. It reports whether it is time to look at the lanes of
// others.
func (r *laneReceiver) expire() (tick bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	for _, l := range r.lanes {
		switch {
		case l.owned && now-l.confirmed >= leaseFor(r.sub.Lease):
			r.let(l)
			l.known = false
		case l.owned && l.expire(now):
			signal(r.wake)
		}
	}
	if r.active && now-time.Duration(r.seen.Load()) > r.sub.Lease { // the owner is gone
		r.active = false
		for _, l := range r.lanes {
			if l.owned {
				l.anew()
				l.leaving = true
			}
		}
	}
	tick = now >= r.nextTick || r.lookNow
	if tick {
		r.nextTick, r.lookNow = now+r.tick(), false
	}
	return tick
}

// let ends the ownership of a lane. It is called with the mutex held.
func (r *laneReceiver) let(l *lane) {
	l.drop()
	r.forgetReader(l.reader)
	l.reader = ""
	r.tellRenewed()
}

// tellRenewed has a Settle that waits look again. It is called with the mutex held.
func (r *laneReceiver) tellRenewed() {
	close(r.renewed)
	r.renewed = make(chan struct{})
}

// nextRound is how long the keeper has nothing to do.
func (r *laneReceiver) nextRound() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	wait := r.tick()
	for _, l := range r.lanes {
		if l.owned && l.acks != l.committed {
			wait = min(wait, l.written+commitEvery-now)
		}
	}
	return max(wait, time.Millisecond)
}

// write is a record to be written.
type write struct {
	lane     *lane
	record   laneRecord
	revision uint64
	acks     uint64
	begun    time.Duration
}

// write writes the records of the member's lanes: what is acknowledged, that it lives, and what it gives up.
func (r *laneReceiver) write(ctx context.Context) error {
	return r.putAll(ctx, r.writes())
}

func (r *laneReceiver) writes() (due []write) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	for _, l := range r.lanes {
		if !l.owned {
			continue
		}
		age := now - l.written
		release := l.leaving && l.held == 0
		if release || age >= r.sub.Lease/4 || l.acks != l.committed && age >= commitEvery {
			l.written = now
			due = append(due, write{l, l.state(release), l.revision, l.acks, now})
		}
	}
	return due
}

// putAll writes them at the same time. It fails when the stream of records is gone.
func (r *laneReceiver) putAll(ctx context.Context, due []write) error {
	if len(due) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.writeTimeout())
	defer cancel()
	errs := make([]error, len(due))
	var wg sync.WaitGroup
	for i := range due {
		wg.Go(func() { errs[i] = r.put(ctx, due[i]) })
	}
	wg.Wait()
	freed := false
	for i, err := range errs {
		if errors.Is(err, nats.ErrNoResponders) {
			if err := r.store.exists(ctx); errors.Is(err, jetstream.ErrStreamNotFound) {
				return err
			}
		}
		freed = freed || err == nil && due[i].record.Owner == ""
	}
	if freed {
		r.tell("freed")
	}
	return nil
}

// put writes one record.
func (r *laneReceiver) put(ctx context.Context, w write) error {
	revision, err := r.store.put(ctx, w.lane.index, w.record, w.revision)
	if errors.Is(err, errConflict) {
		return r.resolve(ctx, w)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written(w, revision, w.begun)
	return nil
}

// written notes that a record is there. It is called with the mutex held.
func (r *laneReceiver) written(w write, revision uint64, confirmed time.Duration) {
	l := w.lane
	if !l.owned || l.record.Epoch != w.record.Epoch {
		return
	}
	if l.confirmed+freshFor(r.sub.Lease) <= r.now() {
		signal(r.wake) // what has arrived can be delivered again
		r.tellRenewed()
	}
	l.record, l.revision, l.seen = w.record, revision, r.now()
	l.confirmed, l.committed = confirmed, w.acks
	if w.record.Owner == "" {
		r.let(l)
	}
}

// resolve finds out who has replaced a record: the member itself, by a write whose answer was lost, or another.
func (r *laneReceiver) resolve(ctx context.Context, w write) error {
	rec, revision, err := r.store.get(ctx, w.lane.index)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := w.lane
	if !l.owned || l.record.Epoch != w.record.Epoch {
		return nil
	}
	if rec.Owner == r.id && rec.Epoch == w.record.Epoch {
		l.revision = revision
		l.written = 0 // again, at once
		signal(r.poke)
		return errConflict
	}
	released := rec.Owner == "" && rec.Epoch == w.record.Epoch
	r.let(l)
	l.record, l.revision, l.known, l.seen = rec, revision, true, r.now()
	signal(r.wake)
	if released {
		return nil
	}
	return errConflict
}

// Close gives back the lanes, and returns when the server knows, or after five seconds without it: then the leases run
// out. Its error wraps pubsub.ErrInDoubt when acknowledgements may be among what the server does not know. It can be
// called more than once.
func (r *laneReceiver) Close() error { return r.close() }

func (r *laneReceiver) doClose() error {
	r.mu.Lock()
	r.closed, r.active = true, false
	running := r.running
	r.mu.Unlock()
	close(r.done)
	r.here.end()
	r.cancel()
	if running {
		<-r.kept
	}
	r.driver.conn.RemoveStatusListener(r.status)
	if r.driver.conn.IsClosed() {
		return nil // which Receive says
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	open := r.release(ctx)
	r.mu.Lock()
	alone, subs := r.alone(), r.subs
	r.mu.Unlock()
	if r.sub.Temporary && alone {
		_ = r.store.remove(ctx)
	}
	if running {
		r.tell("bye")
	}
	for _, s := range subs {
		_ = s.Unsubscribe()
	}
	if open > 0 {
		return r.wrap(pubsub.ErrInDoubt)
	}
	return nil
}

// release gives up all lanes and returns the number of acknowledgements that may not be written.
func (r *laneReceiver) release(ctx context.Context) (open uint64) {
	for {
		var due []write
		open = 0
		r.mu.Lock()
		for _, l := range r.lanes {
			if l.owned {
				l.anew()
				l.leaving = true
				open += l.acks - l.committed
			}
		}
		r.mu.Unlock()
		if due = r.writes(); len(due) == 0 || ctx.Err() != nil {
			return open
		}
		if r.putAll(ctx, due) != nil {
			return open // the records are gone
		}
		select { // after a failure, and once too often otherwise
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}
