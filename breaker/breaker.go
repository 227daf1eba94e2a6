package breaker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Breaker is a circuit breaker. Make it with [New]; the zero value is not usable. It is safe for concurrent use, starts no
// goroutine and needs no closing; an opening sets a timer that holds on to nothing else. A call while closed allocates
// nothing and takes no lock, but for the first result in each tenth of a WindowTime; it reads the clock once when the window is
// one of time, and twice when slow calls are judged.
type Breaker struct {
	state    atomic.Pointer[state]
	classify func(context.Context, error) Outcome // nil for Classify
	onChange func(Transition)
	base     time.Time
	quota    *quota // of the Set it belongs to; changes under mu

	_        [64]byte // what every call reads is not on the cache line of what calls write
	rejected atomic.Int64
	failed   atomic.Int64 // failures since New, late ones left out
	slow     atomic.Int64
	ignored  atomic.Int64
	opened   atomic.Int64

	mu         sync.Mutex // held to change state, never while a hook or an operation runs
	retired    int64      // calls recorded by windows that were replaced, and by probes
	events     []Transition
	delivering bool
}

// Option sets behaviour that is fixed at construction.
type Option func(*Breaker)

// WithClassifier replaces [Classify]. The function must be quick and safe for concurrent use; nil panics.
func WithClassifier(classify func(ctx context.Context, err error) Outcome) Option {
	if classify == nil {
		panic("breaker: WithClassifier: the function is nil")
	}
	return func(b *Breaker) { b.classify = classify }
}

// OnStateChange calls hook for every transition: in their order, one at a time, outside all locks, on the goroutine of a
// caller that changed the state. The hook may use the breaker. nil panics.
func OnStateChange(hook func(Transition)) Option {
	if hook == nil {
		panic("breaker: OnStateChange: the function is nil")
	}
	return func(b *Breaker) { b.onChange = hook }
}

// New returns a Breaker that is closed, or open when its Mode forces that. It panics on a Config that Validate rejects: call
// Validate first on input from outside.
func New(cfg Config, opts ...Option) *Breaker {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	b := &Breaker{base: time.Now()}
	for _, opt := range opts {
		opt(b)
	}
	cfg = cfg.withDefaults()
	kind := Closed
	if cfg.Mode == forceOpen {
		kind = Open
	}
	b.state.Store(b.successor(new(state), kind, cfg))
	return b
}

func (b *Breaker) now() time.Duration { return time.Since(b.base) }

// Do runs op unless the breaker rejects. It returns op's error as it is, or a *[Error] when op did not run. A panic or
// Goexit of op counts as a failure and goes on up.
func (b *Breaker) Do(ctx context.Context, op func(context.Context) error) error {
	p := Permit{b: b, s: b.state.Load(), ctx: ctx}
	if !p.s.free {
		if err := b.admit(&p); err != nil {
			return err
		}
	}
	defer p.Abort()
	err := op(ctx)
	p.Done(err)
	return err
}

// Wrap returns fn guarded by b. The result is safe for concurrent use when fn is, and adds no allocation.
func Wrap[In, Out any](b *Breaker, fn func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	if b == nil || fn == nil {
		panic("breaker: Wrap: the breaker or the function is nil")
	}
	return func(ctx context.Context, in In) (Out, error) { return run(ctx, b, fn, in) }
}

func run[In, Out any](ctx context.Context, b *Breaker, fn func(context.Context, In) (Out, error), in In) (out Out, err error) {
	p := Permit{b: b, s: b.state.Load(), ctx: ctx}
	if !p.s.free {
		if err = b.admit(&p); err != nil {
			return out, err
		}
	}
	defer p.Abort()
	out, err = fn(ctx, in)
	p.Done(err)
	return out, err
}

// Acquire is the two-step form for streams, handlers and proxies: it returns a permit, or a *[Error]. It never blocks.
// Whoever holds the permit defers Abort and calls Done with the result.
func (b *Breaker) Acquire(ctx context.Context) (p Permit, err error) {
	p.b, p.s, p.ctx = b, b.state.Load(), ctx
	if !p.s.free {
		if err = b.admit(&p); err != nil {
			p.b = nil
		}
	}
	return
}

// admit decides on p where that takes more than a look at the state, and completes it.
func (b *Breaker) admit(p *Permit) error {
	for !p.s.free {
		s := p.s
		switch s.kind {
		case Open:
			// Now and then the clock is read although the timer has not fired, so that nothing depends on it.
			const seldom = 256
			if !s.rejection.nearly.Load() && b.rejected.Load()%seldom != 0 || !s.delayIsOver(b.now()) {
				return b.reject(p)
			}
			b.change(s, HalfOpen)
		case HalfOpen:
			p.start = b.now()
			switch s.episode.issue(p.start, &s.cfg) {
			case issued:
				return nil
			case refused:
				return b.reject(p)
			}
			b.change(s, HalfOpen)
		default:
			p.start = b.now()
			if !s.window.flight.look(p.start) || !b.tripIfDue(s.window, p.start) {
				s.window.flight.begin(p.start)
				return nil
			}
		}
		p.s = b.state.Load()
	}
	return nil
}

// reject counts a rejection and returns it, but when only the metrics are to tell.
func (b *Breaker) reject(p *Permit) error {
	b.rejected.Add(1)
	if p.s.cfg.Mode == metricsOnly {
		p.b = nil // the result is not judged
		return nil
	}
	return p.s.rejection
}

// outcome classifies a result.
func (b *Breaker) outcome(ctx context.Context, err error) Outcome {
	switch {
	case b.classify != nil:
		return b.classify(ctx, err)
	case err == nil:
		return Success
	default:
		return Classify(ctx, err)
	}
}

// record judges one result. Results from an earlier generation are ignored.
func (b *Breaker) record(s *state, start time.Duration, outcome Outcome) {
	var now time.Duration
	slow := false
	if s.clocked {
		now = b.now()
		slow = s.cfg.SlowCall > 0 && now-start >= s.cfg.SlowCall
	}
	w := s.window
	if w == nil {
		b.recordProbe(s, outcome, slow)
		return
	}
	if w.flight != nil {
		w.flight.end(start)
	}
	if outcome == Ignored {
		b.ignored.Add(1)
		return
	}
	failed := outcome == Failure
	if failed {
		w.streak.Add(1)
	} else if w.streak.Load() != 0 {
		w.streak.Store(0)
	}
	judge := w.record(now, failed, slow, s.cfg.MinimumCalls) || w.flight != nil && w.flight.look(now)
	if failed || slow {
		b.count(w, failed, slow)
	}
	if judge {
		b.tripIfDue(w, now)
	}
}

// count adds to the totals, unless the window was replaced.
func (b *Breaker) count(w *window, failed, slow bool) {
	if b.state.Load().window != w {
		return
	}
	if failed {
		b.failed.Add(1)
	}
	if slow {
		b.slow.Add(1)
	}
}

// tripIfDue opens the breaker if what w holds says so, and reports whether it did.
func (b *Breaker) tripIfDue(w *window, now time.Duration) bool {
	s := b.state.Load()
	return s.window == w && s.due(now) && b.change(s, Open)
}

// due reports whether a closed breaker has reason to open.
func (s *state) due(now time.Duration) bool {
	cfg, w := &s.cfg, s.window
	if s.forced() {
		return false
	}
	if cfg.ConsecutiveFailures > 0 && w.streak.Load() >= int64(cfg.ConsecutiveFailures) {
		return true
	}
	t := w.tally(now)
	if t.calls >= int64(cfg.MinimumCalls) && reached(cfg.FailureRatio, t.failures, t.calls) {
		return true
	}
	if w.flight == nil {
		return false
	}
	late := w.flight.overdue(now)
	return t.calls+late >= int64(cfg.MinimumCalls) && reached(cfg.SlowRatio, t.slow+late, t.calls+late)
}

// reached reports whether n of so many calls are the ratio, which is on, or more.
func reached(ratio float64, n, calls int64) bool {
	return ratio > 0 && n > 0 && float64(n) >= ratio*float64(calls)
}

func (b *Breaker) recordProbe(s *state, outcome Outcome, slow bool) {
	current := b.state.Load()
	if current.episode != s.episode {
		return
	}
	if outcome == Ignored {
		b.ignored.Add(1)
		s.episode.giveBack()
		return
	}
	b.mu.Lock()
	b.retired++
	b.mu.Unlock()
	if slow {
		b.slow.Add(1)
	}
	if outcome == Failure {
		b.failed.Add(1)
	}
	if outcome == Failure || slow && current.cfg.SlowRatio > 0 {
		b.change(current, Open)
	} else if s.episode.succeed() >= current.cfg.Probes {
		b.change(current, Closed)
	}
}

// change moves to another state, unless the generation of old is over already, and reports whether it did. From half-open to
// half-open it replaces probes that are lost. A Set may refuse that one more of its breakers opens.
func (b *Breaker) change(old *state, to State) bool {
	b.mu.Lock()
	current := b.state.Load()
	if !current.sameGeneration(old) || current.kind == Closed && !b.quota.take(false) {
		b.mu.Unlock()
		return false
	}
	b.install(current, b.successor(current, to, current.cfg))
	b.deliver()
	return true
}

// install puts next in the place of current. It is called with mu held, and with the quota taken when next is the first to be
// open.
func (b *Breaker) install(current, next *state) {
	b.state.Store(next)
	if current.window != nil && current.window != next.window {
		b.retired += current.window.total()
	}
	if current.kind == next.kind {
		return
	}
	switch next.kind {
	case Open:
		b.opened.Add(1)
	case Closed:
		b.quota.giveBack()
	}
	if b.onChange != nil {
		b.events = append(b.events, Transition{Name: next.cfg.Name, From: current.kind, To: next.kind, At: time.Now()})
	}
}

// deliver hands queued events to the hook, outside the lock that it is called with and gives up. While one goroutine
// delivers, others only queue: that keeps the order.
func (b *Breaker) deliver() {
	if b.delivering || len(b.events) == 0 {
		b.mu.Unlock()
		return
	}
	b.delivering = true
	defer func() { // the hook may panic
		b.delivering = false
		b.mu.Unlock()
	}()
	for len(b.events) > 0 {
		event := b.events[0]
		b.events = b.events[1:]
		b.mu.Unlock()
		func() {
			defer b.mu.Lock()
			b.onChange(event)
		}()
	}
}

// Reconfigure replaces the Config. The state stays what it is unless Mode says otherwise, and an opening its delay. The window
// survives if Window, WindowTime and SlowCall are unchanged, and is judged by the new Config at once; the probes under way
// survive if their number is unchanged. It returns what Validate returns, and then changes nothing.
func (b *Breaker) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	b.mu.Lock()
	current := b.state.Load()
	next := b.reconfigured(current, cfg)
	if current.kind == Closed && next.kind != Closed {
		b.quota.take(true)
	}
	b.install(current, next)
	b.deliver()
	if next.kind == Closed {
		b.tripIfDue(next.window, b.now())
	}
	return nil
}

func (b *Breaker) reconfigured(current *state, cfg Config) *state {
	old := &current.cfg
	switch {
	case cfg.Mode == forceClosed && current.kind != Closed:
		return b.successor(current, Closed, cfg)
	case cfg.Mode == forceOpen && old.Mode != forceOpen:
		return b.successor(current, Open, cfg)
	case cfg.Mode != forceOpen && old.Mode == forceOpen:
		return b.successor(current, HalfOpen, cfg)
	}
	next := *current
	if next.episode != nil && old.Probes != cfg.Probes {
		next.episode = new(episode)
	}
	if next.window != nil && (old.Window != cfg.Window || old.WindowTime != cfg.WindowTime || old.SlowCall != cfg.SlowCall) {
		next.window = newWindow(cfg)
	}
	return next.withConfig(cfg)
}

// Config returns the Config in force, with defaults filled in.
func (b *Breaker) Config() Config { return b.state.Load().cfg }

// State is the state that the next call would meet: an open breaker whose delay is over is half-open, and a closed one with
// too many slow calls under way is open.
func (b *Breaker) State() State {
	s := b.state.Load()
	if s.free {
		return Closed
	}
	now := b.now()
	switch {
	case s.kind == Open && s.delayIsOver(now):
		return HalfOpen
	case s.kind == Closed && s.window.flight != nil && s.window.flight.overdue(now) > 0 && s.due(now):
		return Open
	default:
		return s.kind
	}
}
