package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxDebts bounds the keys that a guard remembers for deletion.
	maxDebts = 10_000
	// lateness is how long after its caller gave up a Set is still expected to arrive at the store. The network may
	// deliver it that late when it comes back, and after a Delete that was sent later on another connection.
	lateness = 5 * time.Second
)

// errAway is why a call was not passed on to the store.
var errAway = errors.New("the store is away and the cache goes on without it")

// guard is the Store through which a cache speaks to its Store, and what keeps the cache fast and right while that
// fails. All methods are safe for concurrent use.
//
// No call takes longer than the timeout, provided that the store obeys its context. Once a call has failed for
// another reason than its caller's context, the store is away: calls fail at once with errAway. The mender, one
// goroutine, asks the store until it answers, makes the deletes that are owed, and lets the calls through again.
//
// A delete is owed for each key whose Set, Delete, Fill or Release failed, whether or not it was sent, or whose Lease was
// sent and failed. Until it is made, Get, Lease, Fill and Release of the key fail with errAway, so that this process does
// not see what a Delete should have removed. A fill that is under way meanwhile does no harm: either the delete finds what it stored, or the
// delete was first and has voided the lease. The same goes for a lease that was granted but whose answer was lost,
// and which would keep all processes from loading the key. A Set has no lease that could be voided, so the key of one
// that failed is deleted a second time when it can no longer arrive; what it leaves in the store can be read until then.
//
// The debts are of this process alone. Others may see the old entry until the delete is made; they all may until its
// TTL ends when the process stops before that, or when there are too many debts, which the error says.
type guard[K comparable, V any] struct {
	store    Store[K, V]
	timeout  time.Duration
	name     string
	owedErr  *Error        // what a key with an owed delete is refused with
	wake     chan struct{} // tells the mender that there is something to do
	stop     context.CancelFunc
	ended    chan struct{} // closed when the mender has ended
	failures atomic.Uint64

	clear     atomic.Bool // the store is there and no delete is owed: all that a call asks when all is well
	mu        sync.Mutex
	away      *Error // what calls are refused with; nil while the store is there
	debts     map[K]debt
	owed      int    // how many of the debts are owed now
	seq       uint64 // the number of the last debt
	forgotten uint64
}

// debt says that a key must be deleted from the store.
type debt struct {
	seq  uint64    // tells whether the key has failed again since
	owed bool      // a delete must be made now
	late time.Time // a delete must be made then, because of a Set that may arrive until then; zero when there is none
}

// guardStats is a snapshot of a guard.
type guardStats struct {
	Away      bool   // the store is not asked
	Pending   int    // keys with a delete still to be made
	Failures  uint64 // calls that the store did not answer, or with an error; those of the mender are not counted
	Forgotten uint64 // deletes that were not remembered, because too many were
}

// newGuard starts a guard. A timeout of zero or less is none. The guard's owner closes it; the store stays open.
func newGuard[K comparable, V any](s Store[K, V], timeout time.Duration, name string) *guard[K, V] {
	ctx, stop := context.WithCancel(context.Background())
	g := &guard[K, V]{
		store: s, timeout: timeout, name: name,
		owedErr: &Error{Name: name, Kind: ErrStore, Cause: fmt.Errorf("%w for this key until it has been deleted there", errAway)},
		wake:    make(chan struct{}, 1), stop: stop, ended: make(chan struct{}),
		debts: map[K]debt{},
	}
	g.clear.Store(true)
	go g.tend(ctx)
	return g
}

// close ends the mender and returns when it has ended. Deletes still owed are tried once more if the store is there,
// for at most the timeout or a second, and then given up. No call may begin after close.
func (g *guard[K, V]) close() {
	g.stop()
	<-g.ended
}

func (g *guard[K, V]) stats() guardStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return guardStats{Away: g.away != nil, Pending: len(g.debts), Failures: g.failures.Load(), Forgotten: g.forgotten}
}

func (g *guard[K, V]) Get(ctx context.Context, key K) (Entry[V], bool, error) {
	if err := g.readable(key); err != nil {
		return Entry[V]{}, false, err
	}
	call := &callContext{Context: ctx, limit: g.timeout}
	e, ok, err := g.store.Get(call, key)
	call.release()
	if err != nil {
		return Entry[V]{}, false, g.failed(ctx, err)
	}
	return e, ok, nil
}

func (g *guard[K, V]) Lease(ctx context.Context, key K, seen uint64) (Grant[V], error) {
	if err := g.readable(key); err != nil {
		return Grant[V]{}, err
	}
	call := &callContext{Context: ctx, limit: g.timeout, lease: true}
	grant, err := g.store.Lease(call, key, seen)
	call.release()
	if err != nil {
		return Grant[V]{}, g.doubt(ctx, key, time.Time{}, err)
	}
	if grant.Lease != nil {
		grant.Lease = &guardLease[K, V]{guard: g, key: key, lease: grant.Lease}
	}
	return grant, nil
}

func (g *guard[K, V]) Set(ctx context.Context, key K, e Entry[V]) error {
	seq, err := g.writable(key)
	if err != nil {
		return err
	}
	call := &callContext{Context: ctx, limit: g.timeout}
	err = g.store.Set(call, key, e)
	call.release()
	if err != nil {
		return g.doubt(ctx, key, time.Now().Add(lateness), err)
	}
	g.paid(key, seq)
	return nil
}

func (g *guard[K, V]) Delete(ctx context.Context, key K) error {
	seq, err := g.writable(key)
	if err != nil {
		return err
	}
	if err := g.remove(ctx, key); err != nil {
		return g.doubt(ctx, key, time.Time{}, err)
	}
	g.paid(key, seq)
	return nil
}

// remove is a Delete of the store within the timeout.
func (g *guard[K, V]) remove(ctx context.Context, key K) error {
	call := &callContext{Context: ctx, limit: g.timeout}
	defer call.release()
	return g.store.Delete(call, key)
}

func (g *guard[K, V]) Ping(ctx context.Context) error {
	call := &callContext{Context: ctx, limit: g.timeout}
	defer call.release()
	return g.store.Ping(call)
}

// guardLease is a lease whose calls go through the guard.
type guardLease[K comparable, V any] struct {
	guard *guard[K, V]
	key   K
	lease Lease[V]
}

func (l *guardLease[K, V]) Fill(ctx context.Context, e Entry[V]) (bool, error) {
	if err := l.usable(); err != nil {
		return false, err
	}
	call := &callContext{Context: ctx, limit: l.guard.timeout}
	ok, err := l.lease.Fill(call, e)
	call.release()
	if err != nil {
		return false, l.guard.doubt(ctx, l.key, time.Time{}, err)
	}
	return ok, nil
}

func (l *guardLease[K, V]) Release(ctx context.Context) error {
	if err := l.usable(); err != nil {
		return err
	}
	call := &callContext{Context: ctx, limit: l.guard.timeout}
	defer call.release()
	if err := l.lease.Release(call); err != nil {
		return l.guard.doubt(ctx, l.key, time.Time{}, err)
	}
	return nil
}

// usable says whether the lease may still be ended at the store. It may not when the key is owed a delete: that is what
// ends the lease then.
func (l *guardLease[K, V]) usable() error {
	seq, err := l.guard.writable(l.key)
	if err == nil && seq != 0 {
		return l.guard.owedErr
	}
	return err
}

// readable says whether the store may be asked for the key.
func (g *guard[K, V]) readable(key K) error {
	if g.clear.Load() {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.away != nil {
		return g.away
	}
	if g.debts[key].owed {
		return g.owedErr
	}
	return nil
}

// writable says whether the store may be told about the key, and returns the number of the delete that is owed for it,
// or zero. While the store is away it may not, and a delete is owed from then on.
func (g *guard[K, V]) writable(key K) (uint64, error) {
	if g.clear.Load() {
		return 0, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.away != nil {
		return 0, g.owe(key, time.Time{}, g.away)
	}
	if d := g.debts[key]; d.owed {
		return d.seq, nil
	}
	return 0, nil
}

// failed judges a call that the store has failed, and returns the error for its caller.
func (g *guard[K, V]) failed(ctx context.Context, err error) *Error {
	g.failures.Add(1)
	if !refused(err) {
		if !over(ctx) {
			g.fall(err)
		}
		g.nudge() // when only the caller's time was over, the mender finds out whether the store would have answered
	}
	return &Error{Name: g.name, Kind: ErrStore, Cause: err}
}

// doubt is failed for a call after which the key must be deleted. A late that is not zero is when the call can no
// longer arrive.
func (g *guard[K, V]) doubt(ctx context.Context, key K, late time.Time, err error) error {
	failure := g.failed(ctx, err)
	if refused(err) {
		late = time.Time{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.owe(key, late, failure)
}

// refused says that the call failed for its own sake and tells nothing of the store: it was rejected before it was
// sent, or would fail on any store, as a value does that cannot be encoded.
func refused(err error) bool {
	r, ok := err.(interface{ Rejected() bool })
	return ok && r.Rejected() || permanent(err)
}

func permanent(err error) bool {
	p, ok := err.(interface{ Permanent() bool })
	return ok && p.Permanent()
}

// over says that the caller had no time left for the call. A driver that sets the deadline on its connection may return
// a moment before the context has ended.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && time.Until(deadline) <= 0
}
