package redistest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/backstay-go/backstay/cache"
)

// The store that these functions test.
type store = cache.Store[string, string]

// deadline is what callers give each call here, and slack how much longer it may take on a busy machine. Without the deadline
// no call would end.
const (
	deadline = 250 * time.Millisecond
	slack    = 10 * time.Second
)

var entry = cache.Entry[string]{Value: "v", TTL: time.Hour}

// operations are all that a store is asked for. lease may be void.
func operations(s store, lease cache.Lease[string]) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Get":     func(ctx context.Context) error { _, _, err := s.Get(ctx, "k"); return err },
		"Lease":   func(ctx context.Context) error { _, err := s.Lease(ctx, "k", 0); return err },
		"Set":     func(ctx context.Context) error { return s.Set(ctx, "k", entry) },
		"Delete":  func(ctx context.Context) error { return s.Delete(ctx, "k") },
		"Ping":    s.Ping,
		"Fill":    func(ctx context.Context) error { _, err := lease.Fill(ctx, entry); return err },
		"Release": lease.Release,
	}
}

// RequireFailing checks that every operation fails in time, with an error that is kind.
func RequireFailing(t testing.TB, s store, lease cache.Lease[string], kind error) {
	t.Helper()
	for name, operation := range operations(s, lease) {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		start := time.Now()
		err := operation(ctx)
		took := time.Since(start)
		cancel()
		if !errors.Is(err, kind) {
			t.Errorf("%s: got %v, want an error that is %q", name, err, kind)
		}
		if took > deadline+slack {
			t.Errorf("%s took %v with a deadline of %v", name, took, deadline)
		}
	}
}

// leaseContext ends before its deadline, which says how long a lease is to last.
type leaseContext struct {
	context.Context
	deadline time.Time
}

func (c leaseContext) Deadline() (time.Time, bool) { return c.deadline, true }

// RequireEndingEarly checks that every operation ends with its context where that ends before its deadline.
func RequireEndingEarly(t testing.TB, s store, lease cache.Lease[string]) {
	t.Helper()
	for name, operation := range operations(s, lease) {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		start := time.Now()
		err := operation(leaseContext{ctx, start.Add(time.Minute)})
		took := time.Since(start)
		cancel()
		if err == nil {
			t.Errorf("%s: no error from a server that is stopped", name)
		}
		if took > deadline+slack {
			t.Errorf("%s took %v where the context ended after %v", name, took, deadline)
		}
	}
}

// RequireWorking waits until the store answers and checks that a key can be set, read, leased and filled.
func RequireWorking(t testing.TB, s store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	Eventually(t, "the store answers", func() bool {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return s.Ping(ctx) == nil && s.Set(ctx, "working", entry) == nil
	})
	e, ok, err := s.Get(ctx, "working")
	if err != nil || !ok {
		t.Fatalf("Get: %+v %v %v", e, ok, err)
	}
	grant, err := s.Lease(ctx, "working", e.Version)
	if err != nil || grant.Lease == nil {
		t.Fatalf("Lease: %+v %v", grant, err)
	}
	if ok, err := grant.Lease.Fill(ctx, entry); err != nil || !ok {
		t.Fatalf("Fill: %v %v", ok, err)
	}
}

// Granted returns the lease of key, with a minute to use it.
func Granted(t testing.TB, s store, key string) cache.Lease[string] {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	grant, err := s.Lease(ctx, key, 0)
	if err != nil || grant.Lease == nil {
		t.Fatalf("Lease: %+v %v", grant, err)
	}
	return grant.Lease
}

// Watcher follows a store's notices.
type Watcher struct {
	changed chan string
	lost    chan struct{}
}

// Watch starts watching until the test ends and returns once notices come.
func Watch(t testing.TB, s cache.Watcher[string]) *Watcher {
	t.Helper()
	w := &Watcher{changed: make(chan string, 1000), lost: make(chan struct{}, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Watch(ctx, func(key string) { w.changed <- key }, func() { w.lost <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Watch: %v", err)
			}
		case <-time.After(patience):
			t.Error("Watch did not end with its context")
		}
	})
	w.AwaitLost(t, patience)
	return w
}

// AwaitLost returns once lost is called, which must be within the time.
func (w *Watcher) AwaitLost(t testing.TB, within time.Duration) {
	t.Helper()
	select {
	case <-w.lost:
	case <-time.After(within):
		t.Fatalf("Watch did not call lost within %v", within)
	}
}

// AwaitChanged returns once changed is called for key; a lost does not do.
func (w *Watcher) AwaitChanged(t testing.TB, key string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case got := <-w.changed:
			if got == key {
				return
			}
		case <-w.lost:
			t.Fatalf("lost was called where a change of %q was awaited", key)
		case <-timeout:
			t.Fatalf("no notice of a change of %q", key)
		}
	}
}

// RequireListening waits until a change is told without a lost before it, as it is once all servers are listened to.
func (w *Watcher) RequireListening(t testing.TB, s store) {
	t.Helper()
	Eventually(t, "changes are told", func() bool {
		w.Forget()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if s.Set(ctx, "heard", entry) != nil {
			return false
		}
		select {
		case key := <-w.changed:
			return key == "heard"
		case <-w.lost:
		case <-ctx.Done():
		}
		return false
	})
}

// Forget drops the notices that have come.
func (w *Watcher) Forget() {
	for len(w.changed)+len(w.lost) > 0 {
		select {
		case <-w.changed:
		case <-w.lost:
		}
	}
}
