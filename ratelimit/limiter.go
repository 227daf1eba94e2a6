package ratelimit

import (
	"container/list"
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Limiter lets calls through at a limited rate. Make it with [New]; the zero value is not usable. It is safe for concurrent
// use and needs no closing; while callers wait it keeps one timer.
type Limiter struct {
	base   time.Time
	bucket atomic.Pointer[bucket]
	ahead  atomic.Int64 // weight of the callers that wait; changed with mu held

	rejected atomic.Int64
	queued   atomic.Int64
	left     atomic.Int64

	mu    sync.Mutex // held to change the queue or the bucket's shape, never across a wait
	queue list.List  // of *waiter
	timer *time.Timer
}

// New returns a Limiter with a whole burst to give. It panics on a Config that Validate rejects: call Validate first on
// input from outside.
func New(cfg Config) *Limiter {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	l := &Limiter{base: time.Now()}
	l.bucket.Store(newBucket(l, cfg))
	return l
}

// Do runs op when its turn comes, waiting for it as [Limiter.Wait] does. It returns op's error as it is, or what Wait returns;
// in the latter case op did not run.
func (l *Limiter) Do(ctx context.Context, op func(context.Context) error) error {
	if err := l.Wait(ctx); err != nil {
		return err
	}
	return op(ctx)
}

// Wrap returns fn limited by l, waiting as [Limiter.Wait] does. The result is safe for concurrent use when fn is, and adds no
// allocation.
func Wrap[In, Out any](l *Limiter, fn func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	if l == nil || fn == nil {
		panic("ratelimit: Wrap: the limiter or the function is nil")
	}
	return func(ctx context.Context, in In) (Out, error) {
		if err := l.Wait(ctx); err != nil {
			var none Out
			return none, err
		}
		return fn(ctx, in)
	}
}

// Allow takes one call's room if there is any now, and returns nil; otherwise it takes nothing and returns a *[Error]. It
// never blocks, whatever MaxWait says.
func (l *Limiter) Allow() error { return l.AllowN(1) }

// AllowN is [Limiter.Allow] for a call that weighs n, such as a batch of n rows. A weight below 1 or above Burst is always
// rejected, permanently.
func (l *Limiter) AllowN(n int) error {
	if l.try(int64(n)) {
		return nil
	}
	return l.reject(n)
}

// Wait takes one call's room, waiting for its turn at most MaxWait, and returns nil. It returns a *[Error] at once when the
// turn would come later than that or than ctx's deadline, a *[Error] that wraps ctx's error when ctx ends first, and ctx's
// error as it is when ctx is done already. Nothing was taken then; only a caller whose turn comes in the very moment when ctx
// ends may lose it, if others have passed since.
func (l *Limiter) Wait(ctx context.Context) error { return l.WaitN(ctx, 1) }

// WaitN is [Limiter.Wait] for a call that weighs n. A weight below 1 or above Burst is always rejected, permanently.
func (l *Limiter) WaitN(ctx context.Context, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.try(int64(n)) {
		return nil
	}
	if l.bucket.Load().cfg.MaxWait == 0 {
		return l.reject(n)
	}
	return l.wait(ctx, n)
}

// try takes room for n unless there is too little or somebody waits for it.
func (l *Limiter) try(n int64) bool {
	for b := l.bucket.Load(); ; b = l.settled() {
		switch {
		case !b.fits(n):
			return false
		case b.interval == 0:
			return true
		case l.ahead.Load() > 0:
			return false
		case b.take(n, l.now()):
			return true
		case b.tat.Load() != sealed:
			return false
		}
	}
}

// settled is the bucket once the Reconfigure that is under way has put it in place.
func (l *Limiter) settled() *bucket {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bucket.Load()
}

func (l *Limiter) now() int64 { return int64(time.Since(l.base)) * ticks }

func (l *Limiter) reject(n int) error {
	l.rejected.Add(1)
	b := l.bucket.Load()
	e := b.rejection.Load()
	if e.weight != n {
		e = &Error{limiter: l, cfg: b.cfg, weight: n}
		b.rejection.Store(e)
	}
	return e
}

// Reconfigure replaces the Config. Callers that wait stay in their places and are served by the new Rate, even if that makes
// them wait longer than MaxWait; one that is heavier than the new Burst waits for a whole burst. The room there is now stays,
// up to the new Burst: changing a Config back and forth gives nobody more calls. It returns what Validate returns, and then
// changes nothing.
func (l *Limiter) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	l.reconfigure(cfg)
	return nil
}

func (l *Limiter) reconfigure(cfg Config) {
	next := newBucket(l, cfg)
	l.mu.Lock()
	defer l.mu.Unlock()
	next.inherit(l.bucket.Load(), l.now())
	l.bucket.Store(next)
	l.advance()
}

// Config returns the Config in force, with defaults filled in.
func (l *Limiter) Config() Config { return l.bucket.Load().cfg }

// Stats is a snapshot. Rejected, Queued and Left count since New; calls that pass at once are counted by nobody, to keep
// them fast.
type Stats struct {
	Available int   // calls that could pass at once now; 0 while somebody waits, and Burst when Rate is off
	Waiting   int   // callers in the queue now
	Rejected  int64 // calls that were refused
	Queued    int64 // calls that passed after waiting
	Left      int64 // callers whose context ended while they waited
}

// Stats returns the numbers of now. It never slows a call that passes at once; the counts are read one after the other.
func (l *Limiter) Stats() Stats {
	l.mu.Lock()
	b, waiting, available := l.bucket.Load(), l.queue.Len(), int64(0)
	if waiting == 0 {
		available = b.room(l.now())
	}
	l.mu.Unlock()
	return Stats{
		Available: int(available),
		Waiting:   waiting,
		Rejected:  l.rejected.Load(),
		Queued:    l.queued.Load(),
		Left:      l.left.Load(),
	}
}

// Describe returns the kind "ratelimit", the name and the Config, for consoles and telemetry.
func (l *Limiter) Describe() (kind, name string, config any) {
	cfg := l.Config()
	return "ratelimit", cfg.Name, cfg
}

// Metrics yields the numbers of Stats by name.
func (l *Limiter) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := l.Stats()
		_ = yield("available", float64(s.Available)) &&
			yield("waiting", float64(s.Waiting)) &&
			yield("rejected_total", float64(s.Rejected)) &&
			yield("queued_total", float64(s.Queued)) &&
			yield("left_total", float64(s.Left))
	}
}
