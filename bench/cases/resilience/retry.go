package resilience

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/bench/cases"
)

// retrySpec is what a case asks of a retrier. The context is in it because some libraries take it at construction.
type retrySpec struct {
	ctx      context.Context
	attempts int
	delay    time.Duration
}

// retrier runs an operation by one policy value.
type retrier func(op func(context.Context) error) error

func deadlineBeforeDelay(create func(retrySpec) retrier) error {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := create(retrySpec{ctx, 3, 10 * time.Second})(func(context.Context) error { return errBroken })
	took := time.Since(start)
	switch {
	case took > 250*time.Millisecond:
		return fmt.Errorf("slept until the deadline, %s", cases.Millis(took))
	case !errors.Is(err, errBroken):
		return fmt.Errorf("the operation's error is lost: %w", err)
	case !errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the error does not tell of the deadline: %w", err)
	}
	return nil
}

func alreadyCancelled(create func(retrySpec) retrier) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	attempts := 0
	err := create(retrySpec{ctx, 3, time.Millisecond})(func(context.Context) error { attempts++; return errBroken })
	if attempts != 0 || err == nil {
		return fmt.Errorf("%d attempts, error %w", attempts, err)
	}
	return nil
}

func cancelEndsSleep(create func(retrySpec) retrier) error {
	ctx, cancel := context.WithCancel(context.Background())
	start := time.Now()
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := create(retrySpec{ctx, 3, 10 * time.Second})(func(context.Context) error { return errBroken }); err == nil {
		return errors.New("no error")
	}
	if took := time.Since(start); took > time.Second {
		return fmt.Errorf("a cancel after 50 ms ended the sleep after %s", cases.Millis(took))
	}
	start = time.Now()
	const delay = 300 * time.Millisecond
	_ = create(retrySpec{context.Background(), 2, delay})(func(context.Context) error { return errBroken })
	if took := time.Since(start); took > delay*19/10 {
		return fmt.Errorf("two attempts %s apart took %s", cases.Millis(delay), cases.Millis(took))
	}
	return nil
}

func sharedValue(create func(retrySpec) retrier) error {
	run := create(retrySpec{context.Background(), 4, time.Microsecond})
	var attempts atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			_ = run(func(context.Context) error { attempts.Add(1); return errBroken })
		})
	}
	callers.Wait()
	if n := attempts.Load(); n != 32 {
		return fmt.Errorf("8 callers got %d attempts, not 32", n)
	}
	return nil
}
