package cachetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/backstay-go/backstay/cache"
)

// Harness is what [Run] needs to know about a store. New is required.
type Harness struct {
	// New returns an empty store, and closes it through t.Cleanup. It is called once for each check. The store must
	// have room for a hundred entries and keep every string, also one that is no text.
	New func(t *testing.T) cache.Store[string, string]
	// Second returns another handle on the entries of first, as another process would have. Nil: the checks across
	// processes use first for both.
	Second func(t *testing.T, first cache.Store[string, string]) cache.Store[string, string]
	// TTL is a time that the store can keep to within a tenth of it. A check of time that a busy machine holds up for longer is
	// made again, with a new store and twice the TTL. Default: one second.
	TTL time.Duration
	// Wait lets that much of the store's time pass. Nil skips the checks of time.
	Wait func(d time.Duration)
	// Around runs each check, for instance testing/synctest.Test. Nil: the check is called as it is.
	Around func(t *testing.T, check func(t *testing.T))
}

// store is short for the type that the suite checks.
type store = cache.Store[string, string]

// subject is what one check works on.
type subject struct {
	a, b store // two handles on the same entries
	ttl  time.Duration
	wait func(time.Duration)
}

// checks are the clauses of the contract. Each returns what is wrong, or nil.
var checks = []struct {
	name  string
	check func(ctx context.Context, s subject) error
}{
	{"PingAnswers", checkPing},
	{"GetReturnsWhatWasSet", checkSet},
	{"ZeroValueIsAnEntry", checkZero},
	{"AbsentIsAnEntry", checkAbsent},
	{"AnyKeyAndValue", checkBinary},
	{"EachStoringHasItsVersion", checkVersions},
	{"DeleteRemoves", checkDelete},
	{"LeaseFindsTheEntry", checkLeaseFinds},
	{"LeaseOfASeenEntryIsGranted", checkSeen},
	{"LeaseIsHeldByOne", checkBusy},
	{"LeaseIsGrantedToOneOfMany", checkContention},
	{"FillStores", checkFill},
	{"SetVoidsTheLease", checkSetVoids},
	{"DeleteVoidsTheLease", checkDeleteVoids},
	{"OtherKeysKeepTheLease", checkOtherKeys},
	{"LeaseFillsOnce", checkFillsOnce},
	{"ReleaseEndsTheLease", checkRelease},
	{"NoStaleFillUnderRaces", checkRaces},
	{"TTLIsKept", checkTTL},
	{"OldEntriesAreKept", checkKeep},
	{"LeaseLapses", checkLapse},
	{"WatchTellsOfChanges", checkWatch},
}

// errSkip is what a check returns that cannot be made.
type errSkip string

func (e errSkip) Error() string { return string(e) }

const (
	errNoWait    = errSkip("Harness.Wait is nil, so time cannot pass: set it to check what time does")
	errNoWatcher = errSkip("the store is no cache.Watcher")
)

// errLate says that the machine was too busy for a check, which shows nothing then.
var errLate = errors.New("the machine was held up for longer than the TTL")

// early is err, the result of looking at what lasts for d after since, unless the look came too late.
func early(err error, since time.Time, d time.Duration) error {
	if err != nil && time.Since(since) >= d {
		return errLate
	}
	return err
}

// Run checks the stores that h makes, each clause of the contract in a subtest.
func Run(t *testing.T, h Harness) {
	if h.Around == nil {
		h.Around = func(t *testing.T, check func(t *testing.T)) { check(t) }
	}
	if h.Second == nil {
		h.Second = func(_ *testing.T, first store) store { return first }
	}
	if h.TTL <= 0 {
		h.TTL = time.Second
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			h.Around(t, func(t *testing.T) { h.run(t, c.check) })
		})
	}
}

func (h Harness) run(t *testing.T, check func(context.Context, subject) error) {
	err := errLate
	for ttl := h.TTL; errors.Is(err, errLate) && ttl <= 64*h.TTL; ttl *= 2 {
		first := h.New(t)
		err = check(t.Context(), subject{a: first, b: h.Second(t, first), ttl: ttl, wait: h.Wait})
	}
	var skip errSkip
	switch {
	case errors.As(err, &skip):
		t.Skip(skip)
	case err != nil:
		t.Fatal(err)
	}
}
