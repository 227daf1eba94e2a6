package resilience

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/backstay-go/backstay/bench/cases"
)

// runner runs an operation under a policy.
type runner func(ctx context.Context, op func(context.Context) error) error

// bulkheads are bulkheads with one slot and no queue to speak of.
type bulkheads struct {
	create       func() runner
	withListener func(listener func()) runner // nil: it has no listener that could panic
	runs         bool                         // it runs the operation; otherwise releasing is the caller's business
}

func panicFreesSlot(b *bulkheads) error {
	if !b.runs {
		return cases.Lack("runs no operation: releasing is the caller's business")
	}
	freed := func(run runner, name string) error {
		_ = cases.Caught(func() { _ = run(context.Background(), func(context.Context) error { panic("operation") }) })
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		var err error
		_ = cases.Caught(func() { err = run(ctx, func(context.Context) error { return nil }) })
		if err != nil {
			return fmt.Errorf("after a panic of %s the slot is lost: %w", name, err)
		}
		return nil
	}
	if err := freed(b.create(), "the operation"); err != nil {
		return err
	}
	if b.withListener == nil {
		return nil
	}
	return freed(b.withListener(func() { panic("listener") }), "a listener")
}

func cancelledNotAdmitted(b *bulkheads) error {
	run := b.create()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	admitted := 0
	for range 1000 {
		_ = run(ctx, func(context.Context) error { admitted++; return nil })
	}
	if admitted > 0 {
		return fmt.Errorf("%d of 1000 cancelled calls were admitted", admitted)
	}
	return nil
}

// limiter waits for its turn.
type limiter func(ctx context.Context) error

// abandonedWaiters lets ten callers wait and go away, by a deadline or by a cancel, and looks at what the next one has to wait.
func abandonedWaiters(create func(every time.Duration) limiter) error {
	byDeadline := func() (context.Context, func()) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		return ctx, func() { <-ctx.Done(); cancel() }
	}
	byCancel := func() (context.Context, func()) {
		ctx, cancel := context.WithCancel(context.Background())
		return ctx, func() { cases.Pause(20 * time.Millisecond); cancel() }
	}
	if err := nextCaller(create, "deadlines", byDeadline); err != nil {
		return err
	}
	return nextCaller(create, "cancels", byCancel)
}

func nextCaller(create func(every time.Duration) limiter, how string, leave func() (context.Context, func())) error {
	const every = 200 * time.Millisecond
	wait := create(every)
	if err := wait(context.Background()); err != nil {
		return err
	}
	start := time.Now()
	ctx, end := leave()
	var waiters sync.WaitGroup
	for range 10 {
		waiters.Go(func() { _ = wait(ctx) })
	}
	end()
	waiters.Wait()
	if err := wait(context.Background()); err != nil {
		return err
	}
	if took := time.Since(start); took > 3*every/2 {
		return fmt.Errorf("after 10 %s the next caller waits %s instead of %s", how, cases.Millis(took), cases.Millis(every))
	}
	return nil
}

// timeoutKind is something that runs operations, perhaps on goroutines of its own.
type timeoutKind struct {
	name string
	run  runner
}

func panicRecoverable(s *subject) error {
	if len(s.timeouts) == 0 {
		return noTimeout
	}
	for _, kind := range s.timeouts {
		fmt.Println("running:", kind.name) // the last thing that the parent reads when the process dies
		value := cases.Caught(func() { _ = kind.run(context.Background(), func(context.Context) error { panic("operation") }) })
		if value == nil {
			return fmt.Errorf("%s: the caller does not see the panic", kind.name)
		}
	}
	return nil
}

func givenUp(s *subject) error {
	if s.abandon == nil {
		return noTimeout
	}
	const limit, takes = 30 * time.Millisecond, 250 * time.Millisecond
	run := s.abandon(limit)
	start := time.Now()
	err := run(context.Background(), func(context.Context) error { cases.Pause(takes); return nil })
	took := time.Since(start)
	if took > (limit+takes)/2 {
		return fmt.Errorf("a timeout of %s blocks for %s", cases.Millis(limit), cases.Millis(took))
	}
	if err == nil {
		return errors.New("no error")
	}
	before := runtime.NumGoroutine()
	if !cases.Eventually(time.Second, func() bool { return runtime.NumGoroutine() < before }) {
		return errors.New("the abandoned goroutine never ends")
	}
	return nil
}
