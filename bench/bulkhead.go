package bench

import (
	"context"
	"errors"
	"runtime"
	"testing"

	failsafebulkhead "github.com/failsafe-go/failsafe-go/bulkhead"
	"golang.org/x/sync/semaphore"

	"github.com/backstay-go/backstay/bulkhead"
)

const (
	freeCase      = "bulkhead, free"
	contendedCase = "bulkhead, 16 callers for 2 slots"
	fullCase      = "bulkhead full, rejection"
	slots         = 8
)

func bulkheads(l *list) {
	l.both(freeCase, work, gates(slots, work)...)
	l.put(contendedCase, yielding, gates(2, yielding), sixteen)
	l.add(fullCase, work,
		subject{ours, fullBulkhead},
		subject{semaphoreName, fullSemaphore},
		subject{"channel", fullChannel},
		subject{failsafeBare, fullFailsafe},
	)
}

// yielding lets others run while it holds a slot: without that two cores would hardly ever meet.
func yielding(_ context.Context, n int) (int, error) {
	runtime.Gosched()
	return n + 1, nil
}

// sixteen runs sixteen callers.
func sixteen(fn call) func(*testing.B) {
	loop := parallel(fn)
	return func(b *testing.B) {
		b.SetParallelism(max(1, 16/runtime.GOMAXPROCS(0)))
		loop(b)
	}
}

func gates(limit int, fn call) []subject {
	return []subject{
		{ours, func() call {
			return bulkhead.Wrap(bulkhead.New(bulkhead.Config{MaxConcurrent: limit, MaxQueue: 64}), fn)
		}},
		{semaphoreName, func() call { return weighted(int64(limit), fn) }},
		{"channel", func() call { return channel(limit, fn) }},
		{"channel and context", func() call { return channelOrDone(limit, fn) }},
		{failsafeBare, func() call { return failsafeGate(failsafebulkhead.New[int](uint(limit)), fn) }},
		{failsafeName + ", executor", func() call {
			return failsafeExecutor(fn, failsafebulkhead.NewBuilder[int](uint(limit)).WithMaxWaitTime(window).Build())
		}},
	}
}

func weighted(limit int64, fn call) call {
	s := semaphore.NewWeighted(limit)
	return func(ctx context.Context, n int) (int, error) {
		if err := s.Acquire(ctx, 1); err != nil {
			return 0, err
		}
		defer s.Release(1)
		return fn(ctx, n)
	}
}

func channel(limit int, fn call) call {
	s := make(chan struct{}, limit)
	return func(ctx context.Context, n int) (int, error) {
		s <- struct{}{}
		defer func() { <-s }()
		return fn(ctx, n)
	}
}

func channelOrDone(limit int, fn call) call {
	s := make(chan struct{}, limit)
	return func(ctx context.Context, n int) (int, error) {
		select {
		case s <- struct{}{}:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		defer func() { <-s }()
		return fn(ctx, n)
	}
}

func failsafeGate(b failsafebulkhead.Bulkhead[int], fn call) call {
	return func(ctx context.Context, n int) (int, error) {
		if err := b.AcquirePermit(ctx); err != nil {
			return 0, err
		}
		defer b.ReleasePermit()
		return fn(ctx, n)
	}
}

var errFull = errors.New("full")

func fullBulkhead() call {
	b := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	if _, err := b.Acquire(context.Background()); err != nil {
		panic(err)
	}
	return bulkhead.Wrap(b, work)
}

func fullSemaphore() call {
	s := semaphore.NewWeighted(1)
	s.TryAcquire(1)
	return unless(func() bool { return s.TryAcquire(1) })
}

func fullChannel() call {
	s := make(chan struct{}, 1)
	s <- struct{}{}
	return unless(func() bool {
		select {
		case s <- struct{}{}:
			return true
		default:
			return false
		}
	})
}

func fullFailsafe() call {
	b := failsafebulkhead.New[int](1)
	b.TryAcquirePermit()
	return unless(b.TryAcquirePermit)
}

// unless runs the work if it is allowed to.
func unless(allowed func() bool) call {
	return func(ctx context.Context, n int) (int, error) {
		if !allowed() {
			return 0, errFull
		}
		return work(ctx, n)
	}
}
