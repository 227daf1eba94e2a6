// Package policytest checks that a type keeps the contract of backstay.Policy, so that it can be composed with others.
//
// Call [Run] from a test of the policy:
//
//	func TestPolicy(t *testing.T) {
//		policytest.Run(t, func() policytest.Policy { return NewThrottle(1) })
//	}
//
// What is checked: the operation runs zero or more times, never two at once in one Do and never after Do has returned; its
// context is derived from the caller's; its error reaches the caller, and nil only if the last run returned nil; panics and
// runtime.Goexit pass through, and what the policy holds is given back; Do returns when the operation gives up on a cancelled
// context; and all this from many goroutines, so run it under the race detector.
package policytest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Policy is the interface under test; it is backstay.Policy.
type Policy interface {
	Do(ctx context.Context, op func(context.Context) error) error
}

// Run checks the policies that newPolicy makes, a new one for each subtest. Let them have the smallest capacity that the type
// can have, so that a leak shows, let them run an operation at once when they are new, and let them bear one failure.
func Run(t *testing.T, newPolicy func() Policy) {
	t.Helper()
	for name, check := range map[string]func(*testing.T, Policy){
		"SuccessIsPassedOn":           successIsPassedOn,
		"TheErrorReachesTheCaller":    theErrorReachesTheCaller,
		"NilOnlyIfTheLastRunWasNil":   nilOnlyIfTheLastRunWasNil,
		"NeverTwoAtOnceNorAfterwards": neverTwoAtOnceNorAfterwards,
		"TheContextIsDerived":         theContextIsDerived,
		"CancellationEndsDo":          cancellationEndsDo,
		"PanicsPassAndRelease":        panicsPassAndRelease,
		"GoexitPassesAndReleases":     goexitPassesAndReleases,
	} {
		t.Run(name, func(t *testing.T) { check(t, newPolicy()) })
	}
}

var errOperation = errors.New("policytest: the operation failed")

// patience is how long a Do may take that has nothing to wait for but its own delays.
const patience = time.Minute

func successIsPassedOn(t *testing.T, p Policy) {
	ran := 0
	err := p.Do(t.Context(), func(context.Context) error { ran++; return nil })
	if err != nil || ran != 1 {
		t.Fatalf("an operation that succeeds ran %d times and Do returned %v: want once and nil", ran, err)
	}
}

func theErrorReachesTheCaller(t *testing.T, p Policy) {
	ran := 0
	err := p.Do(t.Context(), func(context.Context) error { ran++; return errOperation })
	if ran == 0 {
		t.Fatalf("a new policy did not run the operation: %v", err)
	}
	if !errors.Is(err, errOperation) {
		t.Fatalf("Do returned %v, in which errors.Is does not find the operation's error", err)
	}
}

func nilOnlyIfTheLastRunWasNil(t *testing.T, p Policy) {
	var last error
	ran := 0
	err := p.Do(t.Context(), func(context.Context) error {
		if ran++; ran == 1 {
			last = errOperation
		} else {
			last = nil
		}
		return last
	})
	if (err == nil) != (last == nil) {
		t.Fatalf("Do returned %v although the last run returned %v", err, last)
	}
}

func neverTwoAtOnceNorAfterwards(t *testing.T, p Policy) {
	var group sync.WaitGroup
	for caller := range 8 {
		group.Go(func() {
			for call := range 25 {
				oneCaller(t, p, (caller+call)%3 == 0)
			}
		})
	}
	group.Wait()
}

func oneCaller(t *testing.T, p Policy, fail bool) {
	var running atomic.Int32
	var returned atomic.Bool
	// The deadline bounds policies that would go on trying.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_ = p.Do(ctx, func(context.Context) error { // the verdict is not the point here
		if returned.Load() {
			t.Error("the operation began after Do had returned")
		}
		if running.Add(1) > 1 {
			t.Error("two runs of one operation at once")
		}
		runtime.Gosched()
		running.Add(-1)
		if fail {
			return errOperation
		}
		return nil
	})
	returned.Store(true)
	if running.Load() != 0 {
		t.Error("Do returned while the operation was running")
	}
}

type key struct{}

func theContextIsDerived(t *testing.T, p Policy) {
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	defer cancel()
	err := p.Do(ctx, func(ctx context.Context) error {
		if ctx.Value(key{}) != "value" {
			return errors.New("the value of the caller's context is gone")
		}
		cancel()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(patience):
			return errors.New("the caller's cancellation did not arrive")
		}
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func cancellationEndsDo(t *testing.T, p Policy) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- p.Do(ctx, func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Fatal("Do returned nil although the operation returned the context's error")
		}
	case <-time.After(patience):
		t.Fatalf("Do still runs %v after its context was cancelled and the operation had returned", patience)
	}
}

func panicsPassAndRelease(t *testing.T, p Policy) {
	value := fmt.Errorf("%w by panic", errOperation)
	func() {
		defer func() {
			if r := recover(); r != value {
				t.Errorf("the caller recovered %v: want the operation's own value", r)
			}
		}()
		_ = p.Do(t.Context(), func(context.Context) error { panic(value) })
		t.Error("Do returned although the operation panicked")
	}()
	stillUsable(t, p)
}

func goexitPassesAndReleases(t *testing.T, p Policy) {
	done := make(chan bool, 1)
	go func() {
		returned := false
		defer func() { done <- returned }()
		_ = p.Do(t.Context(), func(context.Context) error { runtime.Goexit(); return nil })
		returned = true
	}()
	select {
	case returned := <-done:
		if returned {
			t.Error("Do returned although the operation called runtime.Goexit")
		}
	case <-time.After(patience):
		t.Fatal("the goroutine hangs after runtime.Goexit")
	}
	stillUsable(t, p)
}

func stillUsable(t *testing.T, p Policy) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ran := false
	if err := p.Do(ctx, func(context.Context) error { ran = true; return nil }); err != nil || !ran {
		t.Fatalf("the next call: ran %v, error %v: the policy did not give back what it held", ran, err)
	}
}
