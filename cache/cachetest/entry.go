package cachetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/cache"
)

func checkPing(ctx context.Context, s subject) error { return s.a.Ping(ctx) }

func checkSet(ctx context.Context, s subject) error {
	if err := absent(ctx, s.a, "k"); err != nil {
		return err
	}
	for _, want := range []cache.Entry[string]{
		entry("one"),
		{Value: "two", TTL: time.Hour + 7*time.Nanosecond, Keep: 3*time.Minute + time.Nanosecond, Cost: 5 * time.Microsecond},
		{Value: "until evicted"},
	} {
		if err := s.a.Set(ctx, "k", want); err != nil {
			return err
		}
		if err := errors.Join(present(ctx, s.a, "k", want), present(ctx, s.b, "k", want)); err != nil {
			return err
		}
	}
	return absent(ctx, s.a, "other")
}

func checkZero(ctx context.Context, s subject) error {
	if err := s.a.Set(ctx, "k", cache.Entry[string]{}); err != nil {
		return err
	}
	return present(ctx, s.b, "k", cache.Entry[string]{})
}

func checkAbsent(ctx context.Context, s subject) error {
	none := cache.Entry[string]{Absent: true, TTL: time.Hour}
	err := errors.Join(s.a.Set(ctx, "set", none), present(ctx, s.b, "set", none))
	if err != nil {
		return err
	}
	lease, err := granted(ctx, s.a, "filled", 0)
	if err != nil {
		return err
	}
	_, err = lease.Fill(ctx, none)
	return errors.Join(err, present(ctx, s.b, "filled", none))
}

// checkBinary uses keys that begin, end or are nothing but what servers treat as special.
func checkBinary(ctx context.Context, s subject) error {
	var all []byte
	for b := range 256 {
		all = append(all, byte(b))
	}
	keys := []string{"", "{}", "}", "{", "a}b{c", "{a}{b}", "*", ":", "\x00", "a b\r\n$3", "Grüße", "\xff\xfe", string(all)}
	for i, key := range keys {
		if err := s.a.Set(ctx, key, entry(fmt.Sprint(i, string(all)))); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	for i, key := range keys {
		if err := present(ctx, s.b, key, entry(fmt.Sprint(i, string(all)))); err != nil {
			return err
		}
		if err := fillAfterDelete(ctx, s, key); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	return nil
}

func fillAfterDelete(ctx context.Context, s subject, key string) error {
	if err := s.a.Delete(ctx, key); err != nil {
		return err
	}
	lease, err := granted(ctx, s.a, key, 0)
	if err != nil {
		return err
	}
	return errors.Join(filled(ctx, lease, true), present(ctx, s.b, key, entry("filled")))
}

func checkVersions(ctx context.Context, s subject) error {
	seen := map[uint64]bool{}
	for range 3 {
		if err := s.a.Set(ctx, "k", entry("same")); err != nil {
			return err
		}
		e, _, err := s.a.Get(ctx, "k")
		if err != nil {
			return err
		}
		again, _, err := s.b.Get(ctx, "k")
		switch {
		case err != nil:
			return err
		case e.Version == 0:
			return errors.New("Get returned an entry whose Version is zero")
		case seen[e.Version]:
			return fmt.Errorf("two storings have version %d", e.Version)
		case again.Version != e.Version:
			return fmt.Errorf("one storing has versions %d and %d", e.Version, again.Version)
		}
		seen[e.Version] = true
	}
	return nil
}

func checkDelete(ctx context.Context, s subject) error {
	if err := s.a.Delete(ctx, "k"); err != nil {
		return fmt.Errorf("delete of an absent key: %w", err)
	}
	err := errors.Join(s.a.Set(ctx, "k", entry("v")), s.a.Set(ctx, "other", entry("o")), s.b.Delete(ctx, "k"))
	return errors.Join(err, absent(ctx, s.a, "k"), absent(ctx, s.b, "k"), present(ctx, s.a, "other", entry("o")))
}

func checkTTL(ctx context.Context, s subject) error {
	if s.wait == nil {
		return errNoWait
	}
	short := cache.Entry[string]{Value: "short", TTL: s.ttl}
	forever := cache.Entry[string]{Value: "forever", Keep: s.ttl / 10}
	lease, err := granted(ctx, s.a, "filled", 0)
	if err != nil {
		return err
	}
	s.wait(s.ttl / 2) // the time to live begins with the Fill
	begun := time.Now()
	_, err = lease.Fill(ctx, short)
	if err := errors.Join(err, s.a.Set(ctx, "set", short), s.a.Set(ctx, "kept", forever)); err != nil {
		return err
	}
	s.wait(s.ttl * 6 / 10)
	err = errors.Join(present(ctx, s.a, "set", short), present(ctx, s.a, "filled", short))
	if err := early(err, begun, s.ttl*9/10); err != nil {
		return fmt.Errorf("before the end of the TTL: %w", err)
	}
	s.wait(s.ttl * 6 / 10)
	err = errors.Join(absent(ctx, s.a, "set"), absent(ctx, s.a, "filled"), present(ctx, s.a, "kept", forever))
	if err != nil {
		return fmt.Errorf("after the TTL: %w", err)
	}
	_, err = granted(ctx, s.a, "set", 0)
	return err
}

// checkKeep looks at an entry past its TTL, and at ages.
func checkKeep(ctx context.Context, s subject) error {
	if s.wait == nil {
		return errNoWait
	}
	old := cache.Entry[string]{Value: "old", TTL: s.ttl, Keep: s.ttl}
	before := time.Now()
	if err := s.a.Set(ctx, "k", old); err != nil {
		return err
	}
	after := time.Now()
	for _, at := range []time.Duration{0, s.ttl / 2, s.ttl * 3 / 2} {
		s.wait(max(at-time.Since(after), 0))
		if err := early(aged(ctx, s, old, before, after), before, s.ttl*19/10); err != nil {
			return fmt.Errorf("%v after Set: %w", at, err)
		}
	}
	s.wait(s.ttl)
	if err := absent(ctx, s.a, "k"); err != nil {
		return fmt.Errorf("after TTL and Keep: %w", err)
	}
	_, err := granted(ctx, s.a, "k", 0)
	return err
}

// aged checks the age of entry k, which was stored between before and after, as Get and as Lease tell it.
func aged(ctx context.Context, s subject, want cache.Entry[string], before, after time.Time) error {
	youngest := time.Since(after) - s.ttl/10
	got, _, err := s.b.Get(ctx, "k")
	if err := errors.Join(err, same(got, want)); err != nil {
		return err
	}
	grant, err := s.b.Lease(ctx, "k", 0)
	if err := errors.Join(err, same(grant.Entry, want)); err != nil {
		return err
	}
	oldest := time.Since(before) + s.ttl/10
	for _, age := range []time.Duration{got.Age, grant.Entry.Age} {
		if age < max(youngest, 0) || age > oldest {
			return fmt.Errorf("the Age is %v, want %v to %v", age, youngest, oldest)
		}
	}
	return nil
}

func entry(value string) cache.Entry[string] {
	return cache.Entry[string]{Value: value, TTL: time.Hour}
}

// same compares what the caller of Set gives.
func same(got, want cache.Entry[string]) error {
	got.Age, got.Version = 0, 0
	if got != want {
		return fmt.Errorf("the entry is %+v, want %+v", got, want)
	}
	return nil
}

func present(ctx context.Context, s store, key string, want cache.Entry[string]) error {
	got, ok, err := s.Get(ctx, key)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("Get of %q found nothing, want %+v", key, want)
	case got.Age < 0 || got.Age > time.Minute:
		return fmt.Errorf("Get of %q returned an Age of %v", key, got.Age)
	}
	if err := same(got, want); err != nil {
		return fmt.Errorf("Get of %q: %w", key, err)
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
