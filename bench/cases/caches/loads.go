package caches

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/bench/cases"
)

// patience is how long a case waits for what should happen at once.
const patience = 2 * time.Second

// within waits for done.
func within(done <-chan struct{}, what string) error {
	select {
	case <-done:
		return nil
	case <-time.After(patience):
		return errors.New(what)
	}
}

// result describes what a call returned.
func result(v any, err error) error {
	if err != nil {
		return fmt.Errorf("an error: %w", err)
	}
	return fmt.Errorf("%#v", v)
}

// async runs f on a goroutine of its own.
func async(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

func stampede(open func(spec) opened) error {
	var loads atomic.Int64
	c := open(spec{load: func(context.Context, string) (any, error) {
		loads.Add(1)
		cases.Pause(20 * time.Millisecond)
		return "value", nil
	}})
	var wrong atomic.Int64
	var callers sync.WaitGroup
	for range 1000 {
		callers.Go(func() {
			if v, err := c.read("k"); err != nil || v != "value" {
				wrong.Add(1)
			}
		})
	}
	callers.Wait()
	if n := wrong.Load(); n > 0 {
		return fmt.Errorf("%d callers did not get the value", n)
	}
	if n := loads.Load(); n != 1 {
		return fmt.Errorf("%d loads", n)
	}
	return nil
}

const barrierCallers, barrierKeys = 8, 20_000

// instantLoads releases the callers at each key at once. A load this short ends while some of them are between their look into the
// cache and their joining the load. The control, an unprotected map, shows that they do meet: every second load yields the processor,
// without which they would hardly ever on a busy machine.
func instantLoads(open func(spec) opened) error {
	var loads atomic.Int64
	load := func() any {
		if loads.Add(1)%2 == 0 {
			runtime.Gosched()
		}
		return "value"
	}
	c := open(spec{load: func(context.Context, string) (any, error) { return load(), nil }})
	atBarrier(func(key string) { _, _ = c.read(key) })
	if extra := loads.Load() - barrierKeys; extra != 0 {
		return fmt.Errorf("%d extra loads", extra)
	}
	var control sync.Map
	loads.Store(0)
	atBarrier(func(key string) {
		if _, ok := control.Load(key); !ok {
			control.Store(key, load())
		}
	})
	if loads.Load() == barrierKeys {
		return errors.New("an unprotected map made no extra load either: this run shows nothing")
	}
	return nil
}

// atBarrier lets all callers meet before each key.
func atBarrier(get func(key string)) {
	keys := make([]string, barrierKeys)
	for i := range keys {
		keys[i] = "key-" + strconv.Itoa(i)
	}
	arrived := make([]atomic.Int64, barrierKeys)
	var callers sync.WaitGroup
	for range barrierCallers {
		callers.Go(func() {
			for i, key := range keys {
				arrived[i].Add(1)
				for arrived[i].Load() < barrierCallers {
					runtime.Gosched()
				}
				get(key)
			}
		})
	}
	callers.Wait()
}

func firstCancelled(open func(spec) opened) error {
	started := make(chan struct{}, 16)
	c := open(spec{load: func(ctx context.Context, _ string) (any, error) {
		started <- struct{}{}
		select {
		case <-time.After(300 * time.Millisecond):
			return "value", nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}})
	first, cancel := context.WithCancel(context.Background())
	defer cancel()
	gone := async(func() { _, _ = c.get(first, "k") })
	<-started
	errs := make(chan error, 9)
	var coming sync.WaitGroup
	for range cap(errs) {
		coming.Add(1)
		go func() {
			coming.Done()
			_, err := c.read("k")
			errs <- err
		}()
	}
	coming.Wait()
	cases.Pause(30 * time.Millisecond) // they wait by now
	cancel()
	failed := 0
	var last error
	for range cap(errs) {
		if err := <-errs; err != nil {
			failed, last = failed+1, err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d others fail: %w", failed, cap(errs), last)
	}
	return within(gone, "the cancelled caller is still blocked")
}

func waiterDeadline(open func(spec) opened) error {
	started := make(chan struct{})
	c := open(spec{load: func(context.Context, string) (any, error) {
		close(started)
		cases.Pause(300 * time.Millisecond)
		return "value", nil
	}})
	leader := async(func() { _, _ = c.read("k") })
	<-started
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := c.get(ctx, "k")
	took := time.Since(start)
	switch {
	case took > 40*time.Millisecond:
		return fmt.Errorf("it came back after %s", cases.Millis(took))
	case !errors.Is(err, context.DeadlineExceeded):
		return errors.New("it has no error of a deadline")
	}
	return within(leader, "the leader is still blocked")
}

func loaderPanics(open func(spec) opened) error {
	var loads atomic.Int64
	started := make(chan struct{})
	var coming sync.WaitGroup
	coming.Add(9)
	c := open(spec{load: func(context.Context, string) (any, error) {
		if loads.Add(1) == 1 {
			close(started)
			coming.Wait()
			cases.Pause(50 * time.Millisecond) // they wait by now
			panic("loader")
		}
		return "value", nil
	}})
	leader := async(func() { _ = cases.Caught(func() { _, _ = c.read("k") }) })
	<-started
	var panics, without atomic.Int64
	waiters := async(func() {
		var all sync.WaitGroup
		for range 9 {
			all.Go(func() {
				coming.Done()
				var v any
				var err error
				if cases.Caught(func() { v, err = c.read("k") }) != nil {
					panics.Add(1)
				} else if err == nil && v != "value" { // the value can only come from another load
					without.Add(1)
				}
			})
		}
		all.Wait()
	})
	if err := errors.Join(within(leader, "the caller that led is still blocked"), within(waiters, "waiters hang")); err != nil {
		return err
	}
	if n := panics.Load(); n > 0 {
		return fmt.Errorf("%d of 9 waiters panic as well", n)
	}
	return nextCallWorks(c, without.Load())
}

func nextCallWorks(c opened, without int64) error {
	var v any
	var err error
	next := async(func() {
		if p := cases.Caught(func() { v, err = c.read("k") }); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	})
	if hangs := within(next, "the next call hangs"); hangs != nil {
		return hangs
	}
	if err != nil || v != "value" {
		return fmt.Errorf("the next call gets %w", result(v, err))
	}
	if without > 0 {
		return fmt.Errorf("%d of 9 waiters get neither an error nor the value", without)
	}
	return nil
}

// slowLoad lets many callers at other keys come while one key is being loaded.
func slowLoad(open func(spec) opened) error {
	const hits, misses, stall = 500, 50, 100 * time.Millisecond
	started := make(chan struct{})
	c := open(spec{load: func(_ context.Context, key string) (any, error) {
		if key == "slow" {
			close(started)
			cases.Pause(4 * stall)
		}
		return key, nil
	}})
	key := func(i int) string { return "key-" + strconv.Itoa(i) }
	for i := range hits {
		if _, err := c.read(key(i)); err != nil {
			return err
		}
	}
	leader := async(func() { _, _ = c.read("slow") })
	<-started
	var stalled, worst atomic.Int64
	var callers sync.WaitGroup
	for i := range hits + misses {
		callers.Go(func() {
			start := time.Now()
			_, _ = c.read(key(i))
			if took := time.Since(start); took >= stall {
				stalled.Add(1)
				worst.Store(int64(took))
			}
		})
	}
	callers.Wait()
	if n := stalled.Load(); n > 0 {
		return fmt.Errorf("%d of %d calls for other keys took more than %s, such as %s", n, hits+misses, cases.Millis(stall), cases.Millis(time.Duration(worst.Load())))
	}
	return within(leader, "the slow load never ends")
}
