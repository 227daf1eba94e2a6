package caches

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/bench/cases"
)

func failingRefresh(open func(spec) opened) error {
	const due, watched, most = 50 * time.Millisecond, 250 * time.Millisecond, 5
	var broken atomic.Bool
	var tries atomic.Int64
	c := open(spec{ttl: 2 * time.Second, refreshAfter: due, load: func(context.Context, string) (any, error) {
		if broken.Load() {
			tries.Add(1)
			return nil, errBroken
		}
		return "value", nil
	}})
	if _, err := c.read("k"); err != nil {
		return err
	}
	broken.Store(true)
	cases.Pause(due * 3 / 2)
	for start := time.Now(); time.Since(start) < watched; cases.Pause(time.Millisecond) {
		if v, err := c.read("k"); err != nil || v != "value" {
			return fmt.Errorf("while the refresh fails, a caller gets %w", result(v, err))
		}
	}
	switch n := tries.Load(); {
	case n == 0:
		return errors.New("nothing was refreshed")
	case n > most:
		return fmt.Errorf("the source was called %d times", n)
	}
	return nil
}

func zeroValues(open func(spec) opened) error {
	var pointer *int
	for _, value := range []any{0, "", pointer, nil} {
		loads := 0
		c := open(spec{load: func(context.Context, string) (any, error) {
			loads++
			return value, nil
		}})
		for range 3 {
			if v, err := c.read("k"); err != nil || v != value {
				return fmt.Errorf("instead of %#v a caller gets %w", value, result(v, err))
			}
		}
		if loads != 1 {
			return fmt.Errorf("%#v is loaded %d times for 3 reads", value, loads)
		}
	}
	return nil
}

func staleIfError(open func(spec) opened) error {
	const ttl, longer = 100 * time.Millisecond, 400 * time.Millisecond
	var broken atomic.Bool
	c := open(spec{ttl: ttl, staleFor: longer, load: func(context.Context, string) (any, error) {
		if broken.Load() {
			return nil, errBroken
		}
		return "value", nil
	}})
	look := func() (any, bool, error) { return c.lookup(context.Background(), "k") }
	if v, old, err := look(); err != nil || old || v != "value" {
		return fmt.Errorf("at first a caller gets %w, stale: %t", result(v, err), old)
	}
	broken.Store(true)
	cases.Pause(ttl * 3 / 2)
	if v, old, err := look(); err != nil || !old || v != "value" {
		return fmt.Errorf("past the TTL a caller gets %w, stale: %t", result(v, err), old)
	}
	cases.Pause(ttl + longer)
	if v, _, err := look(); !errors.Is(err, errBroken) {
		return fmt.Errorf("past the limit a caller gets %w", result(v, err))
	}
	broken.Store(false)
	if !cases.Eventually(patience, func() bool { v, old, err := look(); return err == nil && !old && v == "value" }) {
		return errors.New("the source is back, but the cache does not notice")
	}
	return nil
}

func negative(open func(spec) opened) error {
	const remembered = 150 * time.Millisecond
	var there atomic.Bool
	var loads atomic.Int64
	c := open(spec{ttl: remembered, absentFor: remembered, load: func(context.Context, string) (any, error) {
		loads.Add(1)
		if there.Load() {
			return "value", nil
		}
		return nil, errAbsent
	}})
	for range 10 {
		if v, err := c.read("k"); !errors.Is(err, errAbsent) {
			return fmt.Errorf("for what the source does not have a caller gets %w", result(v, err))
		}
	}
	if n := loads.Load(); n != 1 {
		return fmt.Errorf("10 reads ask the source %d times", n)
	}
	there.Store(true)
	cases.Pause(remembered * 2)
	if v, err := c.read("k"); err != nil || v != "value" {
		return fmt.Errorf("when the source has it, a caller gets %w", result(v, err))
	}
	return nil
}

// boundedMemory compares the heap with the one of a cache that is just full.
func boundedMemory(open func(spec) opened) error {
	const capacity, keys, size, allowed = 10_000, 1_000_000, 1 << 10, 1.5
	c := open(spec{capacity: capacity, load: func(context.Context, string) (any, error) {
		return strings.Repeat("x", size), nil
	}})
	empty := heap()
	readAll(c, "first-", capacity)
	full := heap() - empty
	readAll(c, "key-", keys)
	var now float64
	if !cases.Eventually(patience, func() bool { now = heap() - empty; return now <= full*allowed }) {
		return fmt.Errorf("full it takes %.1f MB, after a million keys %.1f MB", full/1e6, now/1e6)
	}
	runtime.KeepAlive(c)
	return nil
}

// readAll reads each key once, from two goroutines.
func readAll(c opened, prefix string, keys int) {
	var readers sync.WaitGroup
	for r := range 2 {
		readers.Go(func() {
			for i := r; i < keys; i += 2 {
				_, _ = c.read(prefix + strconv.Itoa(i))
			}
		})
	}
	readers.Wait()
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
