package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// minPause is the mender's rest before it asks the store again; it doubles with each failure up to maxPause.
	minPause = 20 * time.Millisecond
	maxPause = time.Second
	// deletesAtOnce is how many of the owed deletes are made concurrently.
	deletesAtOnce = 16
)

// fall declares the store away because of err.
func (g *guard[K, V]) fall(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.away == nil {
		// Told, not wrapped: the calls refused from now on have not run out of their own time.
		g.away = &Error{Name: g.name, Kind: ErrStore, Cause: fmt.Errorf("%w until it answers again, after: %s", errAway, err.Error())}
		g.clear.Store(false)
	}
}

// rise declares the store there again. Keys that came to be owed while the others were deleted stay refused by themselves.
func (g *guard[K, V]) rise() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.away = nil
	g.clear.Store(g.owed == 0)
}

func (g *guard[K, V]) isAway() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.away != nil
}

// nudge wakes the mender, now or as soon as it rests.
func (g *guard[K, V]) nudge() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// owe remembers that the key must be deleted, and returns the failure that is the cause, or an error that says it could
// not be remembered. The caller holds the lock.
func (g *guard[K, V]) owe(key K, late time.Time, failure *Error) error {
	d, known := g.debts[key]
	if !known && len(g.debts) >= maxDebts {
		g.forgotten++
		return &Error{Name: g.name, Kind: ErrStore, Cause: fmt.Errorf("%w; %d keys already wait to be deleted, "+
			"so an older entry of this one may be served until its TTL ends: repeat the call", failure.Cause, maxDebts)}
	}
	if late.Before(d.late) {
		late = d.late
	}
	if !d.owed {
		g.owed++
	}
	g.seq++
	g.debts[key] = debt{seq: g.seq, owed: true, late: late}
	g.clear.Store(false)
	g.nudge()
	return failure
}

// paid notes that the store has done a Set or a Delete of the key which began when the delete of that number was owed. If
// the key has failed again since then, the delete is still owed.
func (g *guard[K, V]) paid(key K, seq uint64) {
	if seq == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	d := g.debts[key]
	if d.seq != seq {
		return
	}
	if d.owed {
		g.owed--
	}
	if d.owed = false; time.Until(d.late) > 0 {
		g.debts[key] = d
	} else {
		delete(g.debts, key)
	}
	g.clear.Store(g.away == nil && g.owed == 0)
}

// due returns the keys that are to be deleted now, with the numbers of their debts.
func (g *guard[K, V]) due() map[K]uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	keys := map[K]uint64{}
	for key, d := range g.debts {
		if d.owed || time.Until(d.late) <= 0 {
			keys[key] = d.seq
		}
	}
	return keys
}

// nextLate is how long it is until a key that is not owed a delete now must be deleted, and whether there is one.
func (g *guard[K, V]) nextLate() (time.Duration, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var first time.Time
	for _, d := range g.debts {
		if !d.owed && (first.IsZero() || d.late.Before(first)) {
			first = d.late
		}
	}
	return time.Until(first), !first.IsZero()
}

// tend is the mender. A store that falls again soon after it has answered is asked at growing intervals too: it may
// well answer a Ping and nothing else, and each call let through to it costs its caller the timeout.
func (g *guard[K, V]) tend(ctx context.Context) {
	defer close(g.ended)
	pause := minPause
	var well time.Time
	for g.idle(ctx) {
		if again := time.Since(well) < maxPause+g.timeout; !again {
			pause = minPause
		} else if g.isAway() {
			pause = rest(ctx, pause)
		}
		for !g.mend(ctx) && ctx.Err() == nil {
			pause = rest(ctx, pause)
		}
		well = time.Now()
		rest(ctx, minPause) // callers with little time nudge often
	}
	g.giveUp()
}

// idle waits until there is something to do, and says whether there is: not when ctx has ended.
func (g *guard[K, V]) idle(ctx context.Context) bool {
	var late <-chan time.Time
	if wait, ok := g.nextLate(); ok {
		late = time.After(wait)
	}
	select {
	case <-ctx.Done():
		return false
	case <-late:
	case <-g.wake:
	}
	return ctx.Err() == nil
}

// rest waits for about the pause, or until ctx ends, and returns the next pause.
func rest(ctx context.Context, pause time.Duration) time.Duration {
	select {
	case <-ctx.Done():
	case <-time.After(pause/2 + rand.N(pause/2)):
	}
	return min(2*pause, maxPause)
}

// mend asks the store whether it answers, makes the deletes that are due, and says whether the store is there then.
func (g *guard[K, V]) mend(ctx context.Context) bool {
	err := g.Ping(ctx)
	if err == nil {
		err = g.pay(ctx)
	}
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		g.fall(err)
		return false
	}
	g.rise()
	return true
}

// pay makes the deletes that are due. A delete that fails for the sake of its key is given up: such a key cannot have been
// stored.
func (g *guard[K, V]) pay(ctx context.Context) error {
	workers, ctx := errgroup.WithContext(ctx)
	workers.SetLimit(deletesAtOnce)
	for key, seq := range g.due() {
		workers.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := g.remove(ctx, key); err != nil && !permanent(err) {
				return err
			}
			g.paid(key, seq)
			return nil
		})
	}
	return workers.Wait()
}

// giveUp makes one more attempt at what is owed, so that a process whose calls are cancelled because it stops leaves no
// old entries behind.
func (g *guard[K, V]) giveUp() {
	if g.isAway() || len(g.due()) == 0 {
		return
	}
	limit := g.timeout
	if limit <= 0 {
		limit = maxPause
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	g.mend(ctx)
}
