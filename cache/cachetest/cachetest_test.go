package cachetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plain is a correct store, as simple as can be. Its faults make it break one clause each.
type plain struct {
	mu      sync.Mutex
	entries map[string]cache.Entry[string]
	expiry  map[string]time.Time
	leases  map[string]*plainLease
	fault   fault
}

type fault int

const (
	none fault = iota
	losesZero
	keepsDeleted
	leasesAlways
	dropsFills
	setKeepsLease
	deleteKeepsLease
	voidsAllLeases
	fillsTwice
	keepsReleased
	ignoresTTL
	dropsForever
	forgetsTTL
)

func newPlain(f fault) *plain {
	return &plain{entries: map[string]cache.Entry[string]{}, expiry: map[string]time.Time{},
		leases: map[string]*plainLease{}, fault: f}
}

func (p *plain) Get(_ context.Context, key string) (cache.Entry[string], bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.get(key)
}

func (p *plain) get(key string) (cache.Entry[string], bool, error) {
	e, ok := p.entries[key]
	expired := e.TTL > 0 && !time.Now().Before(p.expiry[key])
	lost := p.fault == losesZero && e.Value == "" || p.fault == dropsForever && e.TTL <= 0
	if !ok || lost || expired && p.fault != ignoresTTL {
		return cache.Entry[string]{}, false, nil
	}
	if p.fault == forgetsTTL {
		e.TTL = 0
	}
	return e, true, nil
}

func (p *plain) put(key string, e cache.Entry[string]) {
	p.entries[key] = e
	p.expiry[key] = time.Now().Add(e.TTL)
}

func (p *plain) Lease(_ context.Context, key string) (cache.Entry[string], cache.Lease[string], error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok, err := p.get(key); ok && p.fault != leasesAlways {
		return e, nil, err
	}
	l := &plainLease{p, key}
	p.leases[key] = l
	return cache.Entry[string]{}, l, nil
}

func (p *plain) Set(_ context.Context, key string, e cache.Entry[string]) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.void(key, setKeepsLease)
	p.put(key, e)
	return nil
}

func (p *plain) Delete(_ context.Context, key string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.void(key, deleteKeepsLease)
	if p.fault != keepsDeleted {
		delete(p.entries, key)
	}
	return nil
}

func (p *plain) void(key string, unless fault) {
	if p.fault == voidsAllLeases {
		clear(p.leases)
	}
	if p.fault != unless {
		delete(p.leases, key)
	}
}

type plainLease struct {
	p   *plain
	key string
}

func (l *plainLease) Fill(_ context.Context, e cache.Entry[string]) (bool, error) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.p.leases[l.key] != l {
		return false, nil
	}
	if l.p.fault != fillsTwice {
		delete(l.p.leases, l.key)
	}
	if l.p.fault != dropsFills {
		l.p.put(l.key, e)
	}
	return true, nil
}

func (l *plainLease) Release(context.Context) error {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.p.leases[l.key] == l && l.p.fault != keepsReleased {
		delete(l.p.leases, l.key)
	}
	return nil
}

// all runs the whole suite on stores with the fault and returns what it finds.
func all(ctx context.Context, f fault) error {
	var err error
	for _, c := range checks {
		err = errors.Join(err, c.check(ctx, newPlain(f)))
	}
	return errors.Join(err, checkTTL(ctx, newPlain(f), time.Second, time.Sleep))
}

func TestSuiteAcceptsACorrectStore(t *testing.T) {
	Run(t, Harness{
		New:    func(*testing.T) cache.Store[string, string] { return newPlain(none) },
		Wait:   time.Sleep,
		Around: synctest.Test,
	})
}

func TestSuiteCatchesEachFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for f := losesZero; f <= forgetsTTL; f++ {
			if err := all(t.Context(), f); err == nil {
				t.Errorf("fault %d was not noticed", f)
			}
		}
		if err := all(t.Context(), none); err != nil {
			t.Errorf("the store without a fault: %v", err)
		}
	})
}

func TestSuiteSkipsExpiryWithoutWait(t *testing.T) {
	if err := checkTTL(t.Context(), newPlain(none), time.Second, nil); !errors.Is(err, errNoWait) {
		t.Fatalf("got %v", err)
	}
}
