package cachetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay-go/backstay/cache"
)

// Harness is what [Run] needs to know about a store. New is required.
type Harness struct {
	// New returns an empty store, and closes it through t.Cleanup. It is called once for each check. The store must
	// have room for a hundred entries.
	New func(t *testing.T) cache.Store[string, string]
	// TTL is a time to live that the store can keep to within a tenth of it. Default: one second.
	TTL time.Duration
	// Wait lets that much of the store's time pass. Nil skips the checks of expiry.
	Wait func(d time.Duration)
	// Around runs each check, for instance testing/synctest.Test. Nil: the check is called as it is.
	Around func(t *testing.T, check func(t *testing.T))
}

// store is short for the type that the suite checks.
type store = cache.Store[string, string]

// checks are the clauses of the contract. Each returns what is wrong, or nil.
var checks = []struct {
	name  string
	check func(ctx context.Context, s store) error
}{
	{"GetReturnsWhatWasSet", checkSet},
	{"ZeroValueIsAnEntry", checkZero},
	{"DeleteRemoves", checkDelete},
	{"LeaseFindsTheEntry", checkLeaseFinds},
	{"FillStores", checkFill},
	{"SetVoidsTheLease", checkSetVoids},
	{"DeleteVoidsTheLease", checkDeleteVoids},
	{"OtherKeysKeepTheLease", checkOtherKeys},
	{"LeaseFillsOnce", checkFillsOnce},
	{"ReleaseEndsTheLease", checkRelease},
	{"NoStaleFillUnderRaces", checkRaces},
}

// Run checks the stores that h makes, each clause of the contract in a subtest.
func Run(t *testing.T, h Harness) {
	if h.Around == nil {
		h.Around = func(t *testing.T, check func(t *testing.T)) { check(t) }
	}
	if h.TTL <= 0 {
		h.TTL = time.Second
	}
	for _, c := range checks {
		h.run(t, c.name, c.check)
	}
	h.run(t, "TTLIsKept", func(ctx context.Context, s store) error { return checkTTL(ctx, s, h.TTL, h.Wait) })
}

func (h Harness) run(t *testing.T, name string, check func(context.Context, store) error) {
	t.Run(name, func(t *testing.T) {
		h.Around(t, func(t *testing.T) {
			err := check(t.Context(), h.New(t))
			switch {
			case errors.Is(err, errNoWait):
				t.Skip("Harness.Wait is nil, so time cannot pass: set it to check expiry")
			case err != nil:
				t.Fatal(err)
			}
		})
	})
}

func checkSet(ctx context.Context, s store) error {
	if err := absent(ctx, s, "k"); err != nil {
		return err
	}
	for _, value := range []string{"one", "two"} {
		e := cache.Entry[string]{Value: value, TTL: time.Hour}
		if err := s.Set(ctx, "k", e); err != nil {
			return err
		}
		if err := present(ctx, s, "k", e); err != nil {
			return err
		}
	}
	return absent(ctx, s, "other")
}

func checkZero(ctx context.Context, s store) error {
	if err := s.Set(ctx, "k", cache.Entry[string]{}); err != nil {
		return err
	}
	return present(ctx, s, "k", cache.Entry[string]{})
}

func checkDelete(ctx context.Context, s store) error {
	if err := s.Delete(ctx, "k"); err != nil {
		return fmt.Errorf("delete of an absent key: %w", err)
	}
	err := errors.Join(s.Set(ctx, "k", entry("v")), s.Set(ctx, "other", entry("o")), s.Delete(ctx, "k"))
	return errors.Join(err, absent(ctx, s, "k"), present(ctx, s, "other", entry("o")))
}

func checkLeaseFinds(ctx context.Context, s store) error {
	if err := s.Set(ctx, "k", entry("v")); err != nil {
		return err
	}
	e, lease, err := s.Lease(ctx, "k")
	switch {
	case err != nil:
		return err
	case lease != nil:
		return errors.New("Lease granted a lease of a key that has an entry")
	case e != entry("v"):
		return fmt.Errorf("Lease returned %+v, want %+v", e, entry("v"))
	}
	return nil
}

func checkFill(ctx context.Context, s store) error {
	lease, err := granted(ctx, s, "k")
	if err != nil {
		return err
	}
	return errors.Join(filled(ctx, lease, true), present(ctx, s, "k", entry("filled")))
}

func checkSetVoids(ctx context.Context, s store) error {
	lease, err := granted(ctx, s, "k")
	if err != nil {
		return err
	}
	err = s.Set(ctx, "k", entry("newer"))
	return errors.Join(err, filled(ctx, lease, false), present(ctx, s, "k", entry("newer")))
}

func checkDeleteVoids(ctx context.Context, s store) error {
	lease, err := granted(ctx, s, "k")
	if err != nil {
		return err
	}
	err = s.Delete(ctx, "k")
	err = errors.Join(err, filled(ctx, lease, false), absent(ctx, s, "k"))
	if err != nil {
		return err
	}
	// The void lease is not in the way of the next one, nor does its release end that.
	next, err := granted(ctx, s, "k")
	if err != nil {
		return err
	}
	return errors.Join(lease.Release(ctx), filled(ctx, next, true), present(ctx, s, "k", entry("filled")))
}

func checkOtherKeys(ctx context.Context, s store) error {
	lease, err := granted(ctx, s, "k")
	if err != nil {
		return err
	}
	for i := range 50 {
		key := "other-" + strconv.Itoa(i)
		if err := errors.Join(s.Set(ctx, key, entry("o")), s.Delete(ctx, key)); err != nil {
			return err
		}
	}
	return filled(ctx, lease, true)
}

func checkFillsOnce(ctx context.Context, s store) error {
	lease, err := granted(ctx, s, "k")
	if err != nil {
		return err
	}
	return errors.Join(filled(ctx, lease, true), filled(ctx, lease, false), lease.Release(ctx),
		present(ctx, s, "k", entry("filled")))
}

func checkRelease(ctx context.Context, s store) error {
	lease, err := granted(ctx, s, "k")
	if err != nil {
		return err
	}
	err = errors.Join(lease.Release(ctx), filled(ctx, lease, false), absent(ctx, s, "k"))
	if err != nil {
		return err
	}
	next, err := granted(ctx, s, "k")
	if err != nil {
		return fmt.Errorf("after Release: %w", err)
	}
	return errors.Join(lease.Release(ctx), filled(ctx, next, true))
}

// checkRaces lets loads race with writers, who change the source and then delete or set the entry. When all is quiet
// an entry must be as new as its source.
func checkRaces(ctx context.Context, s store) error {
	const keys, workers, rounds = 4, 4, 300
	var sources [keys]atomic.Int64
	var writing [keys]sync.Mutex
	errs := make(chan error, 2*workers)
	for w := range workers {
		go func() {
			var err error
			for i := 0; i < rounds && err == nil; i++ {
				err = fillFrom(ctx, s, name(i%keys), &sources[i%keys])
			}
			errs <- err
		}()
		go func() {
			var err error
			for i := 0; i < rounds && err == nil; i++ {
				n := (i + w) % keys
				writing[n].Lock()
				version := sources[n].Add(1)
				if i%3 == 0 {
					err = s.Set(ctx, name(n), entry(strconv.FormatInt(version, 10)))
				} else {
					err = s.Delete(ctx, name(n))
				}
				writing[n].Unlock()
			}
			errs <- err
		}()
	}
	var err error
	for range cap(errs) {
		err = errors.Join(err, <-errs)
	}
	for n := range sources {
		e, ok, getErr := s.Get(ctx, name(n))
		if want := strconv.FormatInt(sources[n].Load(), 10); ok && e.Value != want {
			err = errors.Join(err, fmt.Errorf("key %d is left at version %s, its source at %s", n, e.Value, want))
		}
		err = errors.Join(err, getErr)
	}
	return err
}

// fillFrom is one load.
func fillFrom(ctx context.Context, s store, key string, source *atomic.Int64) error {
	_, lease, err := s.Lease(ctx, key)
	if err != nil || lease == nil {
		return err
	}
	_, err = lease.Fill(ctx, entry(strconv.FormatInt(source.Load(), 10)))
	return err
}

var errNoWait = errors.New("no Wait")

func checkTTL(ctx context.Context, s store, ttl time.Duration, wait func(time.Duration)) error {
	if wait == nil {
		return errNoWait
	}
	short := cache.Entry[string]{Value: "short", TTL: ttl}
	forever := cache.Entry[string]{Value: "forever"}
	lease, err := granted(ctx, s, "filled")
	if err != nil {
		return err
	}
	_, err = lease.Fill(ctx, short)
	if err := errors.Join(err, s.Set(ctx, "set", short), s.Set(ctx, "kept", forever)); err != nil {
		return err
	}
	wait(ttl / 2)
	if err := errors.Join(present(ctx, s, "set", short), present(ctx, s, "filled", short)); err != nil {
		return fmt.Errorf("after half the TTL: %w", err)
	}
	wait(ttl)
	err = errors.Join(absent(ctx, s, "set"), absent(ctx, s, "filled"), present(ctx, s, "kept", forever))
	if err != nil {
		return fmt.Errorf("after the TTL: %w", err)
	}
	_, err = granted(ctx, s, "set")
	return err
}

func entry(value string) cache.Entry[string] {
	return cache.Entry[string]{Value: value, TTL: time.Hour}
}

func name(n int) string { return "key-" + strconv.Itoa(n) }

func granted(ctx context.Context, s store, key string) (cache.Lease[string], error) {
	e, lease, err := s.Lease(ctx, key)
	if err == nil && lease == nil {
		err = fmt.Errorf("Lease of absent key %q granted none and returned %+v", key, e)
	}
	return lease, err
}

func filled(ctx context.Context, lease cache.Lease[string], want bool) error {
	got, err := lease.Fill(ctx, entry("filled"))
	if err == nil && got != want {
		err = fmt.Errorf("Fill reported %v, want %v", got, want)
	}
	return err
}

func present(ctx context.Context, s store, key string, want cache.Entry[string]) error {
	got, ok, err := s.Get(ctx, key)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("Get of %q found nothing, want %+v", key, want)
	case got != want:
		return fmt.Errorf("Get of %q returned %+v, want %+v", key, got, want)
	}
	return nil
}

func absent(ctx context.Context, s store, key string) error {
	e, ok, err := s.Get(ctx, key)
	if err == nil && ok {
		err = fmt.Errorf("Get of %q returned %+v, want nothing", key, e)
	}
	return err
}
