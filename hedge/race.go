package hedge

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/backstay-go/backstay/internal/failure"
)

// race is one call of a hedged function. Its context ends when the caller has gone.
type race[In, Out any] struct {
	h       *Hedge
	cfg     *Config
	fn      func(context.Context, In) (Out, error)
	discard func(Out)
	in      In
	results chan result[Out]
}

// result is how one of the two calls ended: it returned, or panicked, or else called Goexit.
type result[Out any] struct {
	attempt  int
	out      Out
	err      error
	returned bool
	panicked *Panic
}

func (r *race[In, Out]) run(ctx context.Context, delay time.Duration) (Out, error) {
	start := r.h.now(r.cfg)
	timer := time.NewTimer(delay)
	defer timer.Stop()
	r.start(ctx, 1)
	var failed [2]result[Out]
	late := false
	for running := 1; ; {
		select {
		case res := <-r.results:
			res.rethrow()
			if res.err == nil {
				r.won(res.attempt, failed[0].err, start)
				return res.out, nil
			}
			failed[res.attempt-1] = res
			if running--; running == 0 {
				return failed[0].out, r.failure(failed[0].err, failed[1].err)
			}
		case <-timer.C:
			late = true
			if r.h.afford(r.cfg) {
				running++
				r.start(context.WithValue(ctx, attemptKey{}, 2), 2)
			}
		case <-ctx.Done():
			if late && failed[0].err == nil {
				r.h.learn(r.cfg, start)
			}
			var none Out
			return none, ctx.Err()
		}
	}
}

// won learns how long the first call took, which when it lost is at least until now. One that failed teaches nothing.
func (r *race[In, Out]) won(attempt int, first error, start time.Duration) {
	if attempt == 2 {
		r.h.secondWon.Add(1)
	}
	if first == nil {
		r.h.learn(r.cfg, start)
	}
}

func (r *race[In, Out]) failure(first, second error) error {
	if second == nil || failure.Rejected(second) {
		return first
	}
	return &Error{Name: r.cfg.Name, First: first, Second: second}
}

func (r *race[In, Out]) start(ctx context.Context, attempt int) {
	r.h.running.Add(1)
	go func() {
		res := result[Out]{attempt: attempt}
		defer func() { r.finish(ctx, res, recover()) }()
		res.out, res.err = r.fn(ctx, r.in)
		res.returned = true
	}()
}

// finish runs deferred on the goroutine of the call, so that the stack of a panic is still there.
func (r *race[In, Out]) finish(ctx context.Context, res result[Out], panicked any) {
	if panicked != nil {
		res.panicked = &Panic{Value: panicked, Stack: debug.Stack()}
	}
	r.h.running.Add(-1)
	select {
	case r.results <- res:
	case <-ctx.Done():
		r.leftOver(res)
	}
}

// leftOver takes a result that nobody waits for.
func (r *race[In, Out]) leftOver(res result[Out]) {
	if res.panicked != nil {
		r.h.panickedLate(res.panicked)
		return
	}
	if !res.returned || res.err != nil || r.discard == nil {
		return
	}
	defer func() {
		if value := recover(); value != nil {
			r.h.panickedLate(&Panic{Value: value, Stack: debug.Stack()})
		}
	}()
	r.discard(res.out)
}

// rethrow ends the caller as the function ended, unless that was by returning.
func (res *result[Out]) rethrow() {
	if res.panicked != nil {
		panic(res.panicked)
	}
	if !res.returned {
		runtime.Goexit()
	}
}
