package cache

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errDown is what a faulty store fails with.
var errDown = errors.New("connection refused")

// fault is what happens to a call of a faulty store.
type fault struct {
	err     error         // the call fails with it
	hang    bool          // the call ends with its context
	done    bool          // the call is carried out all the same: only the answer is lost
	late    time.Duration // the call is carried out so long after it has failed
	latency time.Duration // the call takes so long, and is carried out at the end
}

// storeCall is one call that reached a faulty store.
type storeCall struct {
	op, key string
	at      time.Time
	// deadline is that of the call's context.
	deadline time.Time
}

// faultyStore is a faithful store in memory whose calls fail as the test wants.
type faultyStore struct {
	mu      sync.Mutex
	fault   func(op, key string) fault // nil when all is well; called with the lock held
	calls   []storeCall
	entries map[string]Entry[int]
	leases  map[string]faultyHold
	version uint64
	late    sync.WaitGroup
}

// faultyHold is who holds the lease of a key until when.
type faultyHold struct {
	token uint64
	until time.Time
}

func newFaultyStore() *faultyStore {
	return &faultyStore{entries: map[string]Entry[int]{}, leases: map[string]faultyHold{}}
}

// breaks makes all calls from now on fail as f says; without f all is well.
func (s *faultyStore) breaks(f ...fault) {
	s.breaksFor(func(string, string) fault { return append(f, fault{})[0] })
}

func (s *faultyStore) breaksFor(f func(op, key string) fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// count is how many calls of the op have come, of any when it is empty.
func (s *faultyStore) count(op string) int {
	return len(s.times(op))
}

func (s *faultyStore) times(op string) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	var times []time.Time
	for _, c := range s.calls {
		if op == "" || c.op == op {
			times = append(times, c.at)
		}
	}
	return times
}

// last is the latest call.
func (s *faultyStore) last() storeCall {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[len(s.calls)-1]
}

// held is the value under the key, and whether there is one.
func (s *faultyStore) held(key string) (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[key]
	return e.Value, ok
}

// do lets act happen, with the lock held, as far as the fault permits.
func (s *faultyStore) do(ctx context.Context, op, key string, act func()) error {
	s.mu.Lock()
	deadline, _ := ctx.Deadline()
	s.calls = append(s.calls, storeCall{op: op, key: key, at: time.Now(), deadline: deadline})
	var f fault
	if s.fault != nil {
		f = s.fault(op, key)
	}
	if f.done {
		act()
	}
	s.mu.Unlock()
	if f.latency > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(f.latency):
		}
	}
	if f.hang {
		<-ctx.Done()
		f.err = ctx.Err()
	}
	if f.late > 0 {
		s.late.Add(1)
		time.AfterFunc(f.late, func() {
			defer s.late.Done()
			s.locked(act)
		})
	}
	if f.err == nil && !f.done {
		s.locked(act)
	}
	return f.err
}

func (s *faultyStore) locked(act func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	act()
}

func (s *faultyStore) Get(ctx context.Context, key string) (e Entry[int], ok bool, err error) {
	err = s.do(ctx, "get", key, func() { e, ok = s.entries[key] })
	if err != nil {
		return Entry[int]{}, false, err
	}
	return e, ok, nil
}

func (s *faultyStore) Lease(ctx context.Context, key string, seen uint64) (Grant[int], error) {
	until, ok := ctx.Deadline()
	if !ok {
		until = time.Now().Add(10 * time.Second)
	}
	// The late call may run when this one has returned.
	grant := new(Grant[int])
	err := s.do(ctx, "lease", key, func() {
		if e, ok := s.entries[key]; ok && e.Version != seen {
			*grant = Grant[int]{Entry: e, Found: true}
			return
		}
		if hold, ok := s.leases[key]; ok && time.Now().Before(hold.until) {
			return
		}
		s.version++
		s.leases[key] = faultyHold{token: s.version, until: until}
		*grant = Grant[int]{Lease: &faultyLease{store: s, key: key, token: s.version}}
	})
	if err != nil {
		return Grant[int]{}, err
	}
	return *grant, nil
}

// put stores an entry. The lock is held.
func (s *faultyStore) put(key string, e Entry[int]) {
	s.version++
	e.Version = s.version
	s.entries[key] = e
	delete(s.leases, key)
}

func (s *faultyStore) Set(ctx context.Context, key string, e Entry[int]) error {
	return s.do(ctx, "set", key, func() { s.put(key, e) })
}

func (s *faultyStore) Delete(ctx context.Context, key string) error {
	return s.do(ctx, "delete", key, func() {
		delete(s.entries, key)
		delete(s.leases, key)
	})
}

func (s *faultyStore) Ping(ctx context.Context) error {
	return s.do(ctx, "ping", "", func() {})
}

type faultyLease struct {
	store *faultyStore
	key   string
	token uint64
}

// valid says whether the lease can still be used. The lock is held.
func (l *faultyLease) valid() bool {
	hold, ok := l.store.leases[l.key]
	return ok && hold.token == l.token && time.Now().Before(hold.until)
}

func (l *faultyLease) Fill(ctx context.Context, e Entry[int]) (bool, error) {
	filled := new(bool)
	err := l.store.do(ctx, "fill", l.key, func() {
		if l.valid() {
			l.store.put(l.key, e)
			*filled = true
		}
	})
	return err == nil && *filled, err
}

func (l *faultyLease) Release(ctx context.Context) error {
	return l.store.do(ctx, "release", l.key, func() {
		if l.valid() {
			delete(l.store.leases, l.key)
		}
	})
}
