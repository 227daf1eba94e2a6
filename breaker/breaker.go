package breaker

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// State is one of the three states of a circuit breaker.
type State int

// The states.
const (
	Closed   State = iota // calls pass and are judged
	Open                  // calls are rejected
	HalfOpen              // a few calls pass as probes
)

// String is the state in lower case.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	default:
		return "half-open"
	}
}

// Breaker is a circuit breaker. Make it with [New]; the zero value is not usable. It is safe for concurrent use, starts no
// goroutine and needs no closing. A call while closed takes no lock, reads no clock and allocates nothing.
type Breaker struct {
	classify func(context.Context, error) Outcome
	onChange func(Transition)
	base     time.Time

	state    atomic.Pointer[state]
	rejected atomic.Int64
	failed   atomic.Int64 // failures since New, late ones left out
	ignored  atomic.Int64
	opened   atomic.Int64

	mu         sync.Mutex // held to change state, never while a hook or an operation runs
	retired    int64      // calls recorded by windows that were replaced, and by probes
	events     []Transition
	delivering bool
}

// state is everything that changes together. It is immutable but for the atomics it points to. The window (while closed)
// and the episode (while half-open) are the generation: a permit that was given under another one changes nothing.
type state struct {
	kind      State
	cfg       Config
	window    *window
	streak    *atomic.Int64 // consecutive failures
	rejection *Error
	episode   *episode
}

// Transition is a change of state, as given to the hook of [OnStateChange].
type Transition struct {
	Name     string
	From, To State
	At       time.Time
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

// New returns a closed Breaker. It panics on a Config that Validate rejects: call Validate first on input from outside.
func New(cfg Config, opts ...Option) *Breaker {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	b := &Breaker{classify: Classify, base: time.Now()}
	for _, opt := range opts {
		opt(b)
	}
	b.state.Store(closedState(cfg.withDefaults()))
	return b
}

func closedState(cfg Config) *state {
	return &state{kind: Closed, cfg: cfg, window: newWindow(cfg.Window), streak: new(atomic.Int64)}
}

// Do runs op unless the breaker rejects. It returns op's error as it is, or a *[Error] when op did not run. A panic or
// Goexit of op counts as a failure and goes on up.
func (b *Breaker) Do(ctx context.Context, op func(context.Context) error) error {
	p, err := b.Acquire(ctx)
	if err != nil {
		return err
	}
	defer p.Abort()
	err = op(ctx)
	p.Done(err)
	return err
}

// Wrap returns fn guarded by b. The result is safe for concurrent use when fn is, and adds no allocation.
func Wrap[In, Out any](b *Breaker, fn func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	if b == nil || fn == nil {
		panic("breaker: Wrap: the breaker or the function is nil")
	}
	return func(ctx context.Context, in In) (Out, error) {
		p, err := b.Acquire(ctx)
		if err != nil {
			var none Out
			return none, err
		}
		defer p.Abort()
		out, err := fn(ctx, in)
		p.Done(err)
		return out, err
	}
}

// Acquire is the two-step form for streams, handlers and proxies: it returns a permit, or a *[Error]. It never blocks.
// Whoever holds the permit defers Abort and calls Done with the result.
func (b *Breaker) Acquire(ctx context.Context) (Permit, error) {
	s := b.state.Load()
	if s.kind == Closed {
		return Permit{b: b, s: s, ctx: ctx}, nil
	}
	return b.acquireProbe(ctx, s)
}

func (b *Breaker) acquireProbe(ctx context.Context, s *state) (Permit, error) {
	now := time.Since(b.base)
	if s.kind == Open {
		if now < s.rejection.until {
			b.rejected.Add(1)
			return Permit{}, s.rejection
		}
		b.change(s, HalfOpen)
		return b.Acquire(ctx)
	}
	switch s.episode.issue(now, s.cfg) {
	case issued:
		return Permit{b: b, s: s, ctx: ctx}, nil
	case expired:
		b.change(s, HalfOpen)
		return b.Acquire(ctx)
	default:
		b.rejected.Add(1)
		return Permit{}, s.rejection
	}
}

// record judges one result. Results from an earlier generation are ignored.
func (b *Breaker) record(s *state, outcome Outcome) {
	if s.kind == HalfOpen {
		b.recordProbe(s, outcome)
		return
	}
	switch outcome {
	case Ignored:
		b.ignored.Add(1)
	case Success:
		if s.streak.Load() != 0 {
			s.streak.Store(0)
		}
		// The call that fills the window up to the minimum may be a success, and is the first after which the ratio counts.
		if n := s.window.record(false); n == uint64(s.cfg.MinimumCalls) {
			b.tripIfDue(s)
		}
	case Failure:
		s.streak.Add(1)
		s.window.record(true)
		if b.state.Load().window == s.window {
			b.failed.Add(1)
		}
		b.tripIfDue(s)
	}
}

func (b *Breaker) tripIfDue(s *state) {
	current := b.state.Load()
	if current.window != s.window {
		return
	}
	cfg := current.cfg
	calls, failures := s.window.counts()
	ratio := cfg.FailureRatio > 0 && calls >= cfg.MinimumCalls && failures > 0 && float64(failures) >= cfg.FailureRatio*float64(calls)
	streak := cfg.ConsecutiveFailures > 0 && s.streak.Load() >= int64(cfg.ConsecutiveFailures)
	if ratio || streak {
		b.change(current, Open)
	}
}

func (b *Breaker) recordProbe(s *state, outcome Outcome) {
	current := b.state.Load()
	if current.episode != s.episode {
		return
	}
	switch outcome {
	case Ignored:
		b.ignored.Add(1)
		s.episode.giveBack()
	case Failure:
		b.failed.Add(1)
		b.countProbe()
		b.change(current, Open)
	case Success:
		b.countProbe()
		if s.episode.succeed() >= current.cfg.Probes {
			b.change(current, Closed)
		}
	}
}

func (b *Breaker) countProbe() {
	b.mu.Lock()
	b.retired++
	b.mu.Unlock()
}

// change moves to another state, unless the generation of old is over already. From half-open to half-open it replaces
// probes that are lost.
func (b *Breaker) change(old *state, to State) {
	b.mu.Lock()
	current := b.state.Load()
	if !current.sameGeneration(old) {
		b.mu.Unlock()
		return
	}
	next := b.successor(current, to)
	b.state.Store(next)
	if current.window != nil {
		b.retired += int64(current.window.next.Load())
	}
	if to == Open {
		b.opened.Add(1)
	}
	if b.onChange == nil || current.kind == to {
		b.mu.Unlock()
		return
	}
	b.events = append(b.events, Transition{Name: next.cfg.Name, From: current.kind, To: to, At: time.Now()})
	b.deliver()
}

func (s *state) sameGeneration(other *state) bool {
	return s.window == other.window && s.episode == other.episode && s.rejection == other.rejection
}

func (b *Breaker) successor(current *state, to State) *state {
	cfg := current.cfg
	switch to {
	case Open:
		until := time.Since(b.base) + cfg.OpenDelay
		return &state{kind: Open, cfg: cfg, rejection: &Error{name: cfg.Name, state: Open, base: b.base, until: until}}
	case HalfOpen:
		rejection := &Error{name: cfg.Name, state: HalfOpen, base: b.base}
		return &state{kind: HalfOpen, cfg: cfg, episode: current.episode.renewed(), rejection: rejection}
	default:
		return closedState(cfg)
	}
}

// deliver hands queued events to the hook, outside the lock that it is called with and gives up. While one goroutine
// delivers, others only queue: that keeps the order.
func (b *Breaker) deliver() {
	if b.delivering {
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

// Reconfigure replaces the Config. The state stays what it is, and an opening its delay. The window survives if its size is
// unchanged, the probes under way if their number is; otherwise they start anew. It returns what Validate returns, and
// then changes nothing.
func (b *Breaker) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := *b.state.Load()
	old := s.cfg
	s.cfg = cfg.withDefaults()
	if s.episode != nil && old.Probes != s.cfg.Probes {
		s.episode = new(episode)
	}
	resized := s.window != nil && old.Window != s.cfg.Window
	if resized {
		b.retired += int64(s.window.next.Load())
		s.window = newWindow(s.cfg.Window)
	}
	b.state.Store(&s)
	return nil
}

// Config returns the Config in force, with defaults filled in.
func (b *Breaker) Config() Config { return b.state.Load().cfg }

// State is the state that the next call would meet: an open breaker whose delay is over is half-open.
func (b *Breaker) State() State {
	s := b.state.Load()
	if s.kind == Open && time.Since(b.base) >= s.rejection.until {
		return HalfOpen
	}
	return s.kind
}

// Stats is a snapshot. Calls, Successes, Failures, Ignored, Rejected and Opened count since New; a result that came after
// its generation had ended is not counted.
type Stats struct {
	State          State
	Calls          int64 // results judged: successes and failures
	Successes      int64
	Failures       int64
	Ignored        int64
	Rejected       int64
	Opened         int64 // transitions to open
	WindowCalls    int   // calls in the window now
	WindowFailures int   // and how many of them failed
}

// Stats returns the numbers of now. It is cheap and never slows a call; fields are read one after the other.
func (b *Breaker) Stats() Stats {
	b.mu.Lock()
	s, calls := b.state.Load(), b.retired
	b.mu.Unlock()
	stats := Stats{State: b.State(), Failures: b.failed.Load(), Ignored: b.ignored.Load(), Rejected: b.rejected.Load(), Opened: b.opened.Load()}
	if s.window != nil {
		calls += int64(s.window.next.Load())
		stats.WindowCalls, stats.WindowFailures = s.window.counts()
	}
	stats.Calls = calls
	stats.Successes = max(0, calls-stats.Failures)
	return stats
}

// Describe returns the kind "breaker", the name and the Config, for consoles and telemetry.
func (b *Breaker) Describe() (kind, name string, config any) {
	cfg := b.Config()
	return "breaker", cfg.Name, cfg
}

// Metrics yields the numbers of Stats by name. state is 0 closed, 1 open, 2 half-open.
func (b *Breaker) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := b.Stats()
		_ = yield("state", float64(s.State)) &&
			yield("successes_total", float64(s.Successes)) &&
			yield("failures_total", float64(s.Failures)) &&
			yield("ignored_total", float64(s.Ignored)) &&
			yield("rejected_total", float64(s.Rejected)) &&
			yield("opened_total", float64(s.Opened)) &&
			yield("window_calls", float64(s.WindowCalls)) &&
			yield("window_failures", float64(s.WindowFailures))
	}
}
