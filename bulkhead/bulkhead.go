package bulkhead

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
)

// Bulkhead is a limit on concurrent calls with a bounded queue. Make it with [New]; the zero value is not usable. It is
// safe for concurrent use, starts no goroutine and needs no closing.
type Bulkhead struct {
	// counts holds the weight of the running calls in its low half and the number of waiting ones in its high half, so that
	// one compare-and-swap sees both and a call in a hurry cannot overtake the queue.
	counts   atomic.Uint64
	limits   atomic.Pointer[limits]
	rejected atomic.Int64
	admitted atomic.Int64 // after waiting: the others are counted by nobody, to keep the fast path short
	left     atomic.Int64 // waiting callers whose context ended

	mu    sync.Mutex // held to change the queue, never across a wait
	queue waiter     // the place before the first and after the last
}

// limits is what changes together on Reconfigure.
type limits struct {
	cfg           Config
	maxConcurrent uint64
	maxQueue      uint64
	rejection     atomic.Pointer[Error]
}

func newLimits(cfg Config) *limits {
	cfg = cfg.withDefaults()
	l := &limits{
		cfg:           cfg,
		maxConcurrent: uint64(cfg.MaxConcurrent),
		maxQueue:      uint64(max(0, cfg.MaxQueue)),
	}
	l.rejection.Store(&Error{cfg: cfg, weight: 1})
	return l
}

const oneWaiting = uint64(1) << 32

func running(counts uint64) uint64 { return counts & (oneWaiting - 1) }
func waiting(counts uint64) uint64 { return counts >> 32 }

// New returns an empty Bulkhead. It panics on a Config that Validate rejects: call Validate first on input from outside.
func New(cfg Config) *Bulkhead {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	b := &Bulkhead{}
	b.queue.next, b.queue.prev = &b.queue, &b.queue
	b.limits.Store(newLimits(cfg))
	return b
}

// Do runs op when there is a permit, waiting for one if the Config allows. It returns op's error as it is, a *[Error] when
// the bulkhead is full or ctx ends in the queue, or the error of a ctx that is done already; in the latter cases op did not
// run.
func (b *Bulkhead) Do(ctx context.Context, op func(context.Context) error) error {
	p, err := b.Acquire(ctx)
	if err != nil {
		return err
	}
	defer p.Abort()
	return op(ctx)
}

// Wrap returns fn limited by b. The result is safe for concurrent use when fn is, and adds no allocation.
func Wrap[In, Out any](b *Bulkhead, fn func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	if b == nil || fn == nil {
		panic("bulkhead: Wrap: the bulkhead or the function is nil")
	}
	return func(ctx context.Context, in In) (Out, error) { return run(ctx, b, fn, in) }
}

func run[In, Out any](ctx context.Context, b *Bulkhead, fn func(context.Context, In) (Out, error), in In) (Out, error) {
	p, err := b.Acquire(ctx)
	if err != nil {
		var none Out
		return none, err
	}
	defer p.Abort()
	return fn(ctx, in)
}

// Acquire is the two-step form for streams, handlers and proxies: it returns a permit that the holder gives back with Done or
// a deferred Abort, or a *[Error], or the error of a ctx that is done already. It blocks while the call waits in the queue,
// until a permit is free, ctx is done or QueueTimeout is over.
func (b *Bulkhead) Acquire(ctx context.Context) (Permit, error) { return b.AcquireN(ctx, 1) }

// AcquireN is [Bulkhead.Acquire] for a call that weighs n: it takes the place of n calls, and gives it back at once. Those
// behind it in the queue wait until it was served, so that a heavy call is not starved by light ones. A weight below 1 or
// above MaxConcurrent is always rejected, permanently.
func (b *Bulkhead) AcquireN(ctx context.Context, n int) (Permit, error) {
	if err := ctx.Err(); err != nil {
		return Permit{}, err
	}
	l, weight := b.limits.Load(), uint64(n)
	if n < 1 || weight > l.maxConcurrent {
		return Permit{}, b.reject(l, n)
	}
	if b.tryRun(l, weight) {
		return Permit{b: b, weight: weight}, nil
	}
	if l.maxQueue == 0 {
		return Permit{}, b.reject(l, n)
	}
	return b.wait(ctx, weight)
}

func (b *Bulkhead) reject(l *limits, n int) error {
	b.rejected.Add(1)
	e := l.rejection.Load()
	if e.weight != n {
		e = &Error{cfg: l.cfg, weight: n}
		l.rejection.Store(e)
	}
	return e
}

// tryRun takes a permit of the given weight unless too much is taken or somebody waits, which makes counts greater than any
// limit.
func (b *Bulkhead) tryRun(l *limits, weight uint64) bool {
	for {
		c := b.counts.Load()
		if c+weight > l.maxConcurrent {
			return false
		}
		if b.counts.CompareAndSwap(c, c+weight) {
			return true
		}
	}
}

func (b *Bulkhead) release(weight uint64) {
	for {
		c := b.counts.Load()
		if waiting(c) > 0 {
			b.mu.Lock()
			b.counts.Add(-weight)
			b.handOver()
			b.mu.Unlock()
			return
		}
		if b.counts.CompareAndSwap(c, c-weight) {
			return
		}
	}
}

// Reconfigure replaces the Config. Running calls and the queue stay: a higher limit admits waiting callers at once, a lower
// one takes hold as calls end; callers over a lower MaxQueue keep their place, and one that is heavier than a lower
// MaxConcurrent runs when nothing else does. It returns what Validate returns, and then changes nothing.
func (b *Bulkhead) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	b.reconfigure(cfg)
	return nil
}

func (b *Bulkhead) reconfigure(cfg Config) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limits.Store(newLimits(cfg))
	b.handOver()
}

// Config returns the Config in force, with defaults filled in.
func (b *Bulkhead) Config() Config { return b.limits.Load().cfg }

// Stats is a snapshot. Rejected, Queued and Left count since New.
type Stats struct {
	Running  int   // weight of the permits that are held now: their number, where all weigh 1
	Waiting  int   // callers in the queue now
	Limit    int   // MaxConcurrent now
	Rejected int64 // calls that found it full, or waited longer than QueueTimeout
	Queued   int64 // calls that were admitted after waiting
	Left     int64 // callers whose context ended while they waited
}

// Stats returns the numbers of now. It is cheap and never slows a call; fields are read one after the other.
func (b *Bulkhead) Stats() Stats {
	c := b.counts.Load()
	return Stats{
		Running:  int(running(c)),
		Waiting:  int(waiting(c)),
		Limit:    b.Config().MaxConcurrent,
		Rejected: b.rejected.Load(),
		Queued:   b.admitted.Load(),
		Left:     b.left.Load(),
	}
}

// Describe returns the kind "bulkhead", the name and the Config, for consoles and telemetry.
func (b *Bulkhead) Describe() (kind, name string, config any) {
	cfg := b.Config()
	return "bulkhead", cfg.Name, cfg
}

// Metrics yields the numbers of Stats by name.
func (b *Bulkhead) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := b.Stats()
		_ = yield("running", float64(s.Running)) &&
			yield("waiting", float64(s.Waiting)) &&
			yield("limit", float64(s.Limit)) &&
			yield("rejected_total", float64(s.Rejected)) &&
			yield("queued_total", float64(s.Queued)) &&
			yield("left_total", float64(s.Left))
	}
}
