package cachetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fault is a way in which plain breaks the contract.
type fault int

const (
	none fault = iota
	losesZero
	losesAbsent
	losesCost
	losesKeep
	cutsValues
	trimsKeys
	zeroVersion
	versionPerKey
	keepsDeleted
	leasesOverEntries
	ignoresSeen
	refusesSeen
	leaseDropsEntry
	stealsLeases
	busyFindsNothing
	dropsFills
	fillKeepsVersion
	setKeepsLease
	deleteKeepsLease
	voidsOwnLeases
	voidsAllLeases
	fillsTwice
	fillKeepsLease
	keepsReleased
	releasesAnybodys
	fillChecksLate
	ignoresTTL
	dropsForever
	forgetsTTL
	ignoresKeep
	ageZero
	ageFromLoad
	leaseNeverLapses
	leaseLapsesSoon
	fillsLapsed
	silentSet
	silentFill
	noLost
	watchOverlaps
	watchNeverEnds
	pingFails
	faults
)

// caughtBy names the check that is there for a fault; others may notice it as well.
var caughtBy = map[fault]string{
	losesZero: "ZeroValueIsAnEntry", losesAbsent: "AbsentIsAnEntry", losesCost: "GetReturnsWhatWasSet",
	losesKeep: "GetReturnsWhatWasSet", cutsValues: "AnyKeyAndValue", trimsKeys: "AnyKeyAndValue",
	zeroVersion: "EachStoringHasItsVersion", versionPerKey: "EachStoringHasItsVersion", keepsDeleted: "DeleteRemoves",
	leasesOverEntries: "LeaseFindsTheEntry", ignoresSeen: "LeaseOfASeenEntryIsGranted",
	refusesSeen: "LeaseOfASeenEntryIsGranted", leaseDropsEntry: "LeaseOfASeenEntryIsGranted",
	stealsLeases: "LeaseIsGrantedToOneOfMany", busyFindsNothing: "LeaseOfASeenEntryIsGranted", dropsFills: "FillStores",
	fillKeepsVersion: "LeaseOfASeenEntryIsGranted", setKeepsLease: "SetVoidsTheLease",
	deleteKeepsLease: "DeleteVoidsTheLease", voidsOwnLeases: "DeleteVoidsTheLease", voidsAllLeases: "OtherKeysKeepTheLease",
	fillsTwice: "LeaseFillsOnce", fillKeepsLease: "LeaseFillsOnce", keepsReleased: "ReleaseEndsTheLease",
	releasesAnybodys: "ReleaseEndsTheLease", fillChecksLate: "NoStaleFillUnderRaces", ignoresTTL: "TTLIsKept",
	dropsForever: "TTLIsKept", forgetsTTL: "TTLIsKept", ignoresKeep: "OldEntriesAreKept", ageZero: "OldEntriesAreKept",
	ageFromLoad: "OldEntriesAreKept", leaseNeverLapses: "LeaseLapses", leaseLapsesSoon: "LeaseLapses",
	fillsLapsed: "LeaseLapses", silentSet: "WatchTellsOfChanges", silentFill: "WatchTellsOfChanges",
	noLost: "WatchTellsOfChanges", watchOverlaps: "WatchTellsOfChanges", watchNeverEnds: "WatchTellsOfChanges",
	pingFails: "PingAnswers",
}

// plain is a correct store, as simple as can be, unless it has a fault.
type plain struct {
	fault    fault
	mu       sync.Mutex
	entries  map[string]stored
	leases   map[string]*plainLease
	versions uint64
	watchers map[chan string]bool
	stopped  chan struct{} // ends a Watch that ignores its context
}

type stored struct {
	cache.Entry[string]
	at time.Time
}

// handle is a plain as one process sees it.
type handle struct {
	*plain
	process int
}

func newPlain(f fault) *plain {
	return &plain{fault: f, entries: map[string]stored{}, leases: map[string]*plainLease{},
		watchers: map[chan string]bool{}, stopped: make(chan struct{})}
}

func (p *plain) Ping(context.Context) error {
	if p.fault == pingFails {
		return errors.New("no answer")
	}
	return nil
}

func (p *plain) key(key string) string {
	if p.fault == trimsKeys {
		return strings.Trim(key, "{}")
	}
	return key
}

func (p *plain) Get(_ context.Context, key string) (cache.Entry[string], bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.get(p.key(key))
	return e, ok, nil
}

func (p *plain) get(key string) (cache.Entry[string], bool) {
	s, ok := p.entries[key]
	e := s.Entry
	e.Age = time.Since(s.at)
	keep := max(e.Keep, 0)
	if p.fault == ignoresKeep {
		keep = 0
	}
	expired := e.TTL > 0 && e.Age >= e.TTL+keep
	lost := p.fault == losesZero && e.Value == "" || p.fault == dropsForever && e.TTL <= 0 || p.fault == losesAbsent && e.Absent
	if !ok || lost || expired && p.fault != ignoresTTL {
		return cache.Entry[string]{}, false
	}
	p.spoil(&e)
	return e, true
}

func (p *plain) spoil(e *cache.Entry[string]) {
	switch p.fault {
	case forgetsTTL:
		e.TTL = 0
	case losesCost:
		e.Cost = 0
	case losesKeep:
		e.Keep = 0
	case cutsValues:
		e.Value, _, _ = strings.Cut(e.Value, "\x00")
	case zeroVersion:
		e.Version = 0
	case versionPerKey:
		e.Version = 1
	case ageZero:
		e.Age = 0
	case ageFromLoad:
		e.Age *= 2
	}
}

func (p *plain) put(key string, e cache.Entry[string]) {
	p.versions++
	version := p.versions
	if old, ok := p.entries[key]; ok && p.fault == fillKeepsVersion {
		version = old.Version
	}
	e.Version = version
	p.entries[key] = stored{e, time.Now()}
}

func (p *plain) tell(key string) {
	for w := range p.watchers {
		w <- key
	}
}

func (h handle) Lease(ctx context.Context, key string, seen uint64) (cache.Grant[string], error) {
	p := h.plain
	p.mu.Lock()
	defer p.mu.Unlock()
	key = p.key(key)
	held := p.held(key)
	e, ok := p.get(key)
	if p.fault == ignoresSeen || p.fault == refusesSeen && seen != 0 {
		seen = 0
	}
	switch {
	case ok && e.Version != seen && p.fault != leasesOverEntries && (!held || p.fault != busyFindsNothing):
		return cache.Grant[string]{Entry: e, Found: true}, nil
	case held && p.fault != stealsLeases:
		return cache.Grant[string]{}, nil
	}
	if p.fault == leaseDropsEntry {
		delete(p.entries, key)
	}
	l := &plainLease{p: p, key: key, process: h.process, until: time.Now().Add(p.life(ctx))}
	p.leases[key] = l
	return cache.Grant[string]{Lease: l}, nil
}

// held reports whether somebody has the lease of key.
func (p *plain) held(key string) bool {
	l := p.leases[key]
	return l != nil && (p.fault == leaseNeverLapses || time.Now().Before(l.until))
}

func (p *plain) life(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	switch {
	case p.fault == leaseLapsesSoon:
		return time.Millisecond
	case ok:
		return time.Until(deadline)
	}
	return 10 * time.Second
}

func (h handle) Set(_ context.Context, key string, e cache.Entry[string]) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	key = h.key(key)
	h.void(key, setKeepsLease)
	h.put(key, e)
	if h.fault != silentSet {
		h.tell(key)
	}
	return nil
}

func (h handle) Delete(_ context.Context, key string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	key = h.key(key)
	h.void(key, deleteKeepsLease)
	if h.fault != keepsDeleted {
		delete(h.entries, key)
	}
	h.tell(key)
	return nil
}

func (h handle) void(key string, unless fault) {
	if h.fault == voidsAllLeases {
		clear(h.leases)
	}
	l := h.leases[key]
	if h.fault != unless && (h.fault != voidsOwnLeases || l == nil || l.process == h.process) {
		delete(h.leases, key)
	}
}

type plainLease struct {
	p       *plain
	key     string
	process int
	until   time.Time
	ended   bool
}

func (l *plainLease) valid() bool {
	lapsed := !time.Now().Before(l.until) && l.p.fault != fillsLapsed
	return l.p.leases[l.key] == l && !lapsed
}

func (l *plainLease) Fill(_ context.Context, e cache.Entry[string]) (bool, error) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if !l.valid() || l.ended {
		return false, nil
	}
	if l.p.fault == fillChecksLate {
		l.p.mu.Unlock()
		time.Sleep(time.Microsecond)
		l.p.mu.Lock()
	}
	l.ended = l.p.fault == fillKeepsLease
	if l.p.fault != fillsTwice && l.p.fault != fillKeepsLease && l.p.leases[l.key] == l {
		delete(l.p.leases, l.key)
	}
	if l.p.fault != dropsFills {
		l.p.put(l.key, e)
	}
	if l.p.fault != silentFill {
		l.p.tell(l.key)
	}
	return true, nil
}

func (l *plainLease) Release(context.Context) error {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	own := l.valid() && !l.ended
	if own && l.p.fault != keepsReleased || l.p.fault == releasesAnybodys {
		delete(l.p.leases, l.key)
	}
	return nil
}

func (p *plain) Watch(ctx context.Context, changed func(string), lost func()) error {
	keys := make(chan string, 100)
	p.mu.Lock()
	p.watchers[keys] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.watchers, keys)
		p.mu.Unlock()
	}()
	if p.fault != noLost {
		lost()
	}
	for {
		select {
		case key := <-keys:
			if p.fault == watchOverlaps {
				p.twice(func() { changed(key) })
			}
			changed(key)
		case <-ctx.Done():
			if p.fault == watchNeverEnds {
				<-p.stopped
			}
			return ctx.Err()
		}
	}
}

// twice calls call from two goroutines until the calls have overlapped or that has become improbable.
func (p *plain) twice(call func()) {
	for range 20 {
		var wg sync.WaitGroup
		wg.Go(call)
		wg.Go(call)
		wg.Wait()
	}
}

func subjectWith(f fault) subject {
	p := newPlain(f)
	return subject{a: handle{p, 1}, b: handle{p, 2}, ttl: time.Second, wait: time.Sleep}
}

func TestSuiteAcceptsACorrectStore(t *testing.T) {
	Run(t, Harness{
		New:    func(*testing.T) store { return handle{newPlain(none), 1} },
		Second: func(_ *testing.T, first store) store { return handle{first.(handle).plain, 2} },
		Wait:   time.Sleep,
		Around: synctest.Test,
	})
}

func TestSuiteCatchesEachFault(t *testing.T) {
	for f := none + 1; f < faults; f++ {
		t.Run(fmt.Sprint(int(f), " ", caughtBy[f]), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := subjectWith(f)
				defer close(s.a.(handle).stopped)
				for _, c := range checks {
					if c.name == caughtBy[f] {
						if err := c.check(t.Context(), s); err == nil {
							t.Fatalf("fault %d was not noticed", f)
						}
						return
					}
				}
				t.Fatalf("no check for fault %d", f)
			})
		})
	}
}

func TestSuiteSkipsWhatItCannotCheck(t *testing.T) {
	s := subjectWith(none)
	s.wait = nil
	for _, check := range []func(context.Context, subject) error{checkTTL, checkKeep, checkLapse} {
		if err := check(t.Context(), s); err != errNoWait {
			t.Fatalf("got %v", err)
		}
	}
	s.a = struct{ store }{s.a}
	if err := checkWatch(t.Context(), s); err != errNoWatcher {
		t.Fatalf("got %v", err)
	}
}

// A check that was held up shows nothing, and is made again.
func TestSuiteMakesAgainWhatWasHeldUp(t *testing.T) {
	for _, check := range []func(context.Context, subject) error{checkTTL, checkKeep, checkLapse} {
		synctest.Test(t, func(t *testing.T) {
			stores, stalls := 0, 2
			Harness{
				TTL:    time.Second,
				New:    func(*testing.T) store { stores++; return handle{newPlain(none), 1} },
				Second: func(_ *testing.T, first store) store { return handle{first.(handle).plain, 2} },
				Wait: func(d time.Duration) {
					time.Sleep(d)
					if stalls > 0 {
						stalls--
						time.Sleep(10 * time.Second)
					}
				},
			}.run(t, check)
			if stores < 2 {
				t.Fatalf("%d stores: nothing was made again", stores)
			}
		})
	}
}
