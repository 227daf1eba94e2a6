package cachetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/backstay-go/backstay/cache"
)

func checkLeaseFinds(ctx context.Context, s subject) error {
	if err := s.a.Set(ctx, "k", entry("v")); err != nil {
		return err
	}
	e, _, err := s.a.Get(ctx, "k")
	if err != nil {
		return err
	}
	return errors.Join(found(ctx, s.b, 0, e), found(ctx, s.b, e.Version+1, e))
}

// checkSeen is about the refresh of an entry that is thought too old.
func checkSeen(ctx context.Context, s subject) error {
	if err := s.a.Set(ctx, "k", entry("old")); err != nil {
		return err
	}
	old, _, err := s.a.Get(ctx, "k")
	if err != nil {
		return err
	}
	lease, err := granted(ctx, s.a, "k", old.Version)
	if err != nil {
		return err
	}
	err = errors.Join(present(ctx, s.b, "k", entry("old")), found(ctx, s.b, 0, old), busy(ctx, s.b, old.Version))
	if err != nil {
		return fmt.Errorf("while the old entry is being replaced: %w", err)
	}
	if err := filled(ctx, lease, true); err != nil {
		return err
	}
	fresh, _, err := s.b.Get(ctx, "k")
	return errors.Join(err, same(fresh, entry("filled")), found(ctx, s.b, old.Version, fresh))
}

func checkBusy(ctx context.Context, s subject) error {
	lease, err := granted(ctx, s.a, "k", 0)
	if err != nil {
		return err
	}
	err = errors.Join(busy(ctx, s.a, 0), busy(ctx, s.b, 0), busy(ctx, s.b, 7), absent(ctx, s.b, "k"))
	return errors.Join(err, filled(ctx, lease, true), present(ctx, s.b, "k", entry("filled")))
}

// checkContention asks for one lease from many sides at once.
func checkContention(ctx context.Context, s subject) error {
	const callers, rounds = 8, 20
	for round := range rounds {
		key := name(round)
		grants := make(chan bool)
		errs := make(chan error)
		for i := range callers {
			go func() {
				grant, err := []store{s.a, s.b}[i%2].Lease(ctx, key, 0)
				errs <- err
				grants <- grant.Lease != nil
			}()
		}
		var err error
		held := 0
		for range callers {
			err = errors.Join(err, <-errs)
		}
		for range callers {
			if <-grants {
				held++
			}
		}
		if err != nil || held != 1 {
			return errors.Join(err, fmt.Errorf("%d of %d callers hold the lease of a key, want 1", held, callers))
		}
	}
	return nil
}

func checkFill(ctx context.Context, s subject) error {
	lease, err := granted(ctx, s.a, "k", 0)
	if err != nil {
		return err
	}
	want := cache.Entry[string]{Value: "v", TTL: time.Hour + time.Nanosecond, Keep: time.Minute, Cost: time.Millisecond}
	ok, err := lease.Fill(ctx, want)
	if err == nil && !ok {
		err = errors.New("Fill of a granted lease reported false")
	}
	return errors.Join(err, present(ctx, s.a, "k", want), present(ctx, s.b, "k", want))
}

func checkSetVoids(ctx context.Context, s subject) error {
	lease, err := granted(ctx, s.a, "k", 0)
	if err != nil {
		return err
	}
	err = s.b.Set(ctx, "k", entry("newer"))
	err = errors.Join(err, filled(ctx, lease, false), present(ctx, s.a, "k", entry("newer")))
	if err != nil {
		return err
	}
	e, _, err := s.a.Get(ctx, "k")
	if err != nil {
		return err
	}
	return voidIsNobodysWay(ctx, s, lease, e.Version)
}

func checkDeleteVoids(ctx context.Context, s subject) error {
	lease, err := granted(ctx, s.a, "k", 0)
	if err != nil {
		return err
	}
	err = s.b.Delete(ctx, "k")
	err = errors.Join(err, filled(ctx, lease, false), absent(ctx, s.a, "k"))
	if err != nil {
		return err
	}
	return voidIsNobodysWay(ctx, s, lease, 0)
}

// voidIsNobodysWay checks that a void lease does not stop the next one, nor does its end that of the next.
func voidIsNobodysWay(ctx context.Context, s subject, void cache.Lease[string], seen uint64) error {
	next, err := granted(ctx, s.b, "k", seen)
	if err != nil {
		return err
	}
	err = errors.Join(void.Release(ctx), busy(ctx, s.a, seen), filled(ctx, void, false))
	return errors.Join(err, filled(ctx, next, true), present(ctx, s.a, "k", entry("filled")))
}

func checkOtherKeys(ctx context.Context, s subject) error {
	lease, err := granted(ctx, s.a, "k", 0)
	if err != nil {
		return err
	}
	for i := range 50 {
		key := "other-" + strconv.Itoa(i)
		if err := errors.Join(s.b.Set(ctx, key, entry("o")), s.b.Delete(ctx, key)); err != nil {
			return err
		}
	}
	return filled(ctx, lease, true)
}

func checkFillsOnce(ctx context.Context, s subject) error {
	lease, err := granted(ctx, s.a, "k", 0)
	if err != nil {
		return err
	}
	err = errors.Join(filled(ctx, lease, true), filled(ctx, lease, false), lease.Release(ctx))
	e, _, getErr := s.b.Get(ctx, "k")
	err = errors.Join(err, getErr, same(e, entry("filled")))
	if err != nil {
		return err
	}
	return voidIsNobodysWay(ctx, s, lease, e.Version)
}

func checkRelease(ctx context.Context, s subject) error {
	lease, err := granted(ctx, s.a, "k", 0)
	if err != nil {
		return err
	}
	err = errors.Join(lease.Release(ctx), filled(ctx, lease, false), absent(ctx, s.a, "k"))
	if err != nil {
		return err
	}
	return voidIsNobodysWay(ctx, s, lease, 0)
}

// checkLapse lets the time of one lease run out, and not that of another.
func checkLapse(ctx context.Context, s subject) error {
	if s.wait == nil {
		return errNoWait
	}
	begun := time.Now()
	short, cancel := context.WithTimeout(ctx, s.ttl)
	defer cancel()
	lost, err := granted(short, s.a, "k", 0)
	if err := early(err, begun, s.ttl*9/10); err != nil {
		return err
	}
	long, cancelLong := context.WithTimeout(ctx, 100*s.ttl)
	defer cancelLong()
	held, err := granted(long, s.a, "long", 0)
	if err != nil {
		return err
	}
	unbounded, err := granted(ctx, s.a, "unbounded", 0)
	if err != nil {
		return err
	}
	s.wait(s.ttl / 2)
	if err := early(busy(ctx, s.b, 0), begun, s.ttl*9/10); err != nil {
		return fmt.Errorf("before the deadline: %w", err)
	}
	s.wait(s.ttl)
	if err := filled(ctx, lost, false); err != nil {
		return fmt.Errorf("after the deadline: %w", err)
	}
	return errors.Join(voidIsNobodysWay(ctx, s, lost, 0), filled(ctx, held, true), filled(ctx, unbounded, true))
}

// found expects Lease of k to return want.
func found(ctx context.Context, s store, seen uint64, want cache.Entry[string]) error {
	grant, err := s.Lease(ctx, "k", seen)
	switch {
	case err != nil:
		return err
	case grant.Lease != nil || !grant.Found:
		return fmt.Errorf("Lease returned %+v, want the entry", grant)
	case grant.Entry.Version != want.Version:
		return fmt.Errorf("Lease returned version %d, Get %d", grant.Entry.Version, want.Version)
	}
	want.Age, want.Version = 0, 0
	return same(grant.Entry, want)
}

// busy expects Lease of k to return neither an entry nor a lease.
func busy(ctx context.Context, s store, seen uint64) error {
	grant, err := s.Lease(ctx, "k", seen)
	if err == nil && (grant.Lease != nil || grant.Found) {
		err = fmt.Errorf("Lease, held by another, returned %+v", grant)
	}
	return err
}

func granted(ctx context.Context, s store, key string, seen uint64) (cache.Lease[string], error) {
	grant, err := s.Lease(ctx, key, seen)
	if err == nil && (grant.Lease == nil || grant.Found) {
		err = fmt.Errorf("Lease of %q with seen %d returned %+v, want a lease", key, seen, grant)
	}
	return grant.Lease, err
}

func filled(ctx context.Context, lease cache.Lease[string], want bool) error {
	got, err := lease.Fill(ctx, entry("filled"))
	if err == nil && got != want {
		err = fmt.Errorf("Fill reported %v, want %v", got, want)
	}
	return err
}

func name(n int) string { return "key-" + strconv.Itoa(n) }
