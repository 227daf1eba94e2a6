package bulkhead

import (
	"container/list"
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Bulkhead is a limit on concurrent calls with a bounded queue. Make it with [New]; the zero value is not usable. It is
// safe for concurrent use, starts no goroutine and needs no closing.
type Bulkhead struct {
	// counts holds the running calls in its low half and the waiting ones in its high half, so that one compare-and-swap
	// sees both and a call in a hurry cannot overtake the queue.
	counts   atomic.Uint64
	limits   atomic.Pointer[limits]
	rejected atomic.Int64
	admitted atomic.Int64 // after waiting: the others are counted by nobody, to keep the fast path short
	left     atomic.Int64 // waiting callers whose context ended

	mu    sync.Mutex // held to change the queue, never across a wait
	queue list.List  // of chan struct{}, closed when the permit is handed over
}

// limits is what changes together on Reconfigure.
type limits struct {
	cfg           Config
	maxConcurrent uint64
	maxQueue      uint64
	rejection     *Error
}

func newLimits(cfg Config) *limits {
	cfg = cfg.withDefaults()
	return &limits{
		cfg:           cfg,
		maxConcurrent: uint64(cfg.MaxConcurrent),
		maxQueue:      uint64(max(0, cfg.MaxQueue)),
		rejection:     &Error{cfg: cfg},
	}
}

const (
	oneRunning = uint64(1)
	oneWaiting = uint64(1) << 32
)

func running(counts uint64) uint64 { return counts & (oneWaiting - 1) }
func waiting(counts uint64) uint64 { return counts >> 32 }

// New returns an empty Bulkhead. It panics on a Config that Validate rejects: call Validate first on input from outside.
func New(cfg Config) *Bulkhead {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	b := &Bulkhead{}
	b.limits.Store(newLimits(cfg))
	return b
}

// Do runs op when there is a permit, waiting for one if the Config allows. It returns op's error as it is, a *[Error] when
// the bulkhead is full, or the context's error; in both of the latter cases op did not run.
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
	return func(ctx context.Context, in In) (Out, error) {
		p, err := b.Acquire(ctx)
		if err != nil {
			var none Out
			return none, err
		}
		defer p.Abort()
		return fn(ctx, in)
	}
}

// Acquire is the two-step form for streams, handlers and proxies: it returns a permit that the holder gives back with Done or
// a deferred Abort, or a *[Error], or the context's error. It blocks while the call waits in the queue, until a permit is
// free, ctx is done or QueueTimeout is over.
func (b *Bulkhead) Acquire(ctx context.Context) (Permit, error) {
	if err := ctx.Err(); err != nil {
		return Permit{}, err
	}
	l := b.limits.Load()
	if b.tryRun(l) {
		return Permit{b: b}, nil
	}
	if l.maxQueue == 0 {
		b.rejected.Add(1)
		return Permit{}, l.rejection
	}
	return b.wait(ctx)
}

// tryRun takes a permit unless all are taken or somebody waits.
func (b *Bulkhead) tryRun(l *limits) bool {
	for {
		c := b.counts.Load()
		if waiting(c) > 0 || running(c) >= l.maxConcurrent {
			return false
		}
		if b.counts.CompareAndSwap(c, c+oneRunning) {
			return true
		}
	}
}

func (b *Bulkhead) wait(ctx context.Context) (Permit, error) {
	l := b.limits.Load()
	place, admitted := b.enqueue(l)
	if admitted {
		return Permit{b: b}, nil
	}
	if place == nil {
		b.rejected.Add(1)
		return Permit{}, l.rejection
	}
	turn, _ := place.Value.(chan struct{})
	var timeout <-chan time.Time
	if l.cfg.QueueTimeout > 0 {
		timer := time.NewTimer(l.cfg.QueueTimeout)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-turn:
		if err := ctx.Err(); err != nil { // both at once: the permit goes to the next caller
			b.release()
			b.left.Add(1)
			return Permit{}, err
		}
		b.admitted.Add(1)
		return Permit{b: b}, nil
	case <-ctx.Done():
		b.leave(place)
		b.left.Add(1)
		return Permit{}, ctx.Err()
	case <-timeout:
		b.leave(place)
		b.rejected.Add(1)
		return Permit{}, l.rejection
	}
}

// enqueue joins the queue and returns the place in it. There is none when the call was admitted after all, or when the
// queue is full.
func (b *Bulkhead) enqueue(l *limits) (place *list.Element, admitted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		c := b.counts.Load()
		switch {
		case waiting(c) == 0 && running(c) < l.maxConcurrent:
			if b.counts.CompareAndSwap(c, c+oneRunning) {
				return nil, true
			}
		case waiting(c) >= l.maxQueue:
			return nil, false
		default:
			if b.counts.CompareAndSwap(c, c+oneWaiting) {
				return b.queue.PushBack(make(chan struct{})), false
			}
		}
	}
}

// leave gives up a place in the queue, and the permit if it was handed over in the meantime.
func (b *Bulkhead) leave(place *list.Element) {
	turn, _ := place.Value.(chan struct{})
	b.mu.Lock()
	select {
	case <-turn:
		b.mu.Unlock()
		b.release()
		return
	default:
	}
	b.queue.Remove(place)
	b.counts.Add(^(oneWaiting - 1)) // one less waiting
	b.mu.Unlock()
}

func (b *Bulkhead) release() {
	for {
		c := b.counts.Load()
		if waiting(c) > 0 {
			b.mu.Lock()
			b.counts.Add(^uint64(0)) // one less running
			b.handOver()
			b.mu.Unlock()
			return
		}
		if b.counts.CompareAndSwap(c, c-oneRunning) {
			return
		}
	}
}

// handOver gives free permits to those who wait longest. It is called with mu held.
func (b *Bulkhead) handOver() {
	limit := b.limits.Load().maxConcurrent
	for {
		c := b.counts.Load()
		if waiting(c) == 0 || running(c) >= limit {
			return
		}
		if b.counts.CompareAndSwap(c, c-oneWaiting+oneRunning) {
			turn, _ := b.queue.Remove(b.queue.Front()).(chan struct{})
			close(turn)
		}
	}
}

// Reconfigure replaces the Config. Running calls and the queue stay: a higher limit admits waiting callers at once, a lower
// one takes hold as calls end; callers over a lower MaxQueue keep their place. It returns what Validate returns, and then
// changes nothing.
func (b *Bulkhead) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limits.Store(newLimits(cfg))
	b.handOver()
	return nil
}

// Config returns the Config in force, with defaults filled in.
func (b *Bulkhead) Config() Config { return b.limits.Load().cfg }

// Stats is a snapshot. Rejected, Queued and Left count since New.
type Stats struct {
	Running  int   // calls that hold a permit now
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
