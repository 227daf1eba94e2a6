package hedge

import (
	"context"
	"iter"
	"sync/atomic"
	"time"
)

// Hedge decides when a second call begins, and counts. Give each function its own, since it learns the latencies of one. Make
// it with [New]; the zero value is not usable. It is safe for concurrent use and needs no closing; its goroutines are those of
// the calls that run.
type Hedge struct {
	onLatePanic func(*Panic)
	base        time.Time
	cfg         atomic.Pointer[Config]
	latencies   latencies
	balance     atomic.Int64 // of the budget

	calls      atomic.Int64
	hedged     atomic.Int64
	secondWon  atomic.Int64
	denied     atomic.Int64
	running    atomic.Int64
	latePanics atomic.Int64
}

// Option sets behaviour that is fixed at construction.
type Option func(*Hedge)

// OnLatePanic calls hook when a function panics that nobody waits for any more, or discard does, on the goroutine that panicked.
// The panic goes no further, since nobody is left who could recover it; without a hook it is only counted. The hook must not
// panic; nil panics.
func OnLatePanic(hook func(*Panic)) Option {
	if hook == nil {
		panic("hedge: OnLatePanic: the function is nil")
	}
	return func(h *Hedge) { h.onLatePanic = hook }
}

// New returns a Hedge. It panics on a Config that Validate rejects: call Validate first on input from outside.
func New(cfg Config, opts ...Option) *Hedge {
	h := &Hedge{base: time.Now()}
	if err := h.Reconfigure(cfg); err != nil {
		panic(err)
	}
	h.balance.Store(savedUp)
	for _, opt := range opts {
		opt(h)
	}
	return h
}

// Wrap returns fn hedged by h. The result is safe for concurrent use when fn is; fn runs on goroutines of its own. It blocks
// until there is a success, or both calls have failed, or the caller's context has ended, which is then the error. It returns
// the error of the first call where there was no second, and a *[Error] where both failed.
//
// discard is given each value that came with a nil error and was not returned, on a goroutine of its own; nil where values
// need no closing. The context that fn was given ends when the call returns.
func Wrap[In, Out any](h *Hedge, fn func(context.Context, In) (Out, error), discard func(Out)) func(context.Context, In) (Out, error) {
	if h == nil || fn == nil {
		panic("hedge: Wrap: the hedge or the function is nil")
	}
	return func(ctx context.Context, in In) (Out, error) {
		if err := ctx.Err(); err != nil {
			var none Out
			return none, err
		}
		cfg := h.begin()
		delay, ok := h.delay(cfg)
		if !ok {
			start := h.now(cfg)
			out, err := fn(ctx, in)
			if err == nil {
				h.learn(cfg, start)
			}
			return out, err
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		r := &race[In, Out]{h: h, cfg: cfg, fn: fn, discard: discard, in: in, results: make(chan result[Out])}
		return r.run(ctx, delay)
	}
}

type attemptKey struct{}

// Attempt is 2 in the second call, for a function that asks another replica then, and 1 otherwise.
func Attempt(ctx context.Context) int {
	if n, ok := ctx.Value(attemptKey{}).(int); ok {
		return n
	}
	return 1
}

// begin counts a call and lets it pay into the budget. While few calls are late the budget is full, and this only looks.
func (h *Hedge) begin() *Config {
	h.calls.Add(1)
	cfg := h.cfg.Load()
	share := cfg.share()
	for {
		balance := h.balance.Load()
		next := min(balance+max(0, share), savedUp)
		if next == balance || h.balance.CompareAndSwap(balance, next) {
			return cfg
		}
	}
}

// afford takes a second call from the budget, if there is one.
func (h *Hedge) afford(cfg *Config) bool {
	for cfg.Budget > 0 {
		balance := h.balance.Load()
		if balance < oneCall {
			h.denied.Add(1)
			return false
		}
		if h.balance.CompareAndSwap(balance, balance-oneCall) {
			break
		}
	}
	h.hedged.Add(1)
	return true
}

// delay is how long the first call may run before a second begins, if one is to begin at all.
func (h *Hedge) delay(cfg *Config) (time.Duration, bool) {
	if cfg.Quantile > 0 {
		if learned := h.latencies.estimate.Load(); learned > 0 {
			return time.Duration(learned), true
		}
	}
	return cfg.After, cfg.After > 0
}

// now is the monotonic time, which only learning needs.
func (h *Hedge) now(cfg *Config) time.Duration {
	if cfg.Quantile <= 0 {
		return 0
	}
	return time.Since(h.base)
}

func (h *Hedge) learn(cfg *Config, start time.Duration) {
	if cfg.Quantile > 0 {
		h.latencies.record(time.Since(h.base)-start, cfg.Quantile)
	}
}

func (h *Hedge) panickedLate(p *Panic) {
	h.latePanics.Add(1)
	if h.onLatePanic != nil {
		h.onLatePanic(p)
	}
}

// Reconfigure replaces the Config. The latencies that were learned and the balance of the budget survive. It returns what
// Validate returns, and then changes nothing.
func (h *Hedge) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	h.cfg.Store(&cfg)
	h.latencies.relearn(cfg.Quantile)
	return nil
}

// Config returns the Config in force, with defaults filled in.
func (h *Hedge) Config() Config { return *h.cfg.Load() }

// Stats is a snapshot. All but Running and Delay count since New.
type Stats struct {
	Calls      int64         // calls of the function that Wrap returned
	Hedged     int64         // calls that got a second one
	SecondWon  int64         // of these, how many the second one answered
	Denied     int64         // calls that were late and got none, since the budget was spent
	Running    int64         // functions that run now, those that lost and have not returned included
	LatePanics int64         // functions that panicked when nobody waited for them any more
	Delay      time.Duration // after which a second call would begin now; 0 is never
}

// Stats returns the numbers of now. It never slows a call; fields are read one after the other.
func (h *Hedge) Stats() Stats {
	delay, _ := h.delay(h.cfg.Load())
	return Stats{
		Calls: h.calls.Load(), Hedged: h.hedged.Load(), SecondWon: h.secondWon.Load(), Denied: h.denied.Load(),
		Running: h.running.Load(), LatePanics: h.latePanics.Load(), Delay: max(0, delay),
	}
}

// Describe returns the kind "hedge", the name and the Config, for consoles and telemetry.
func (h *Hedge) Describe() (kind, name string, config any) {
	cfg := h.Config()
	return "hedge", cfg.Name, cfg
}

// Metrics yields the numbers of Stats by name.
func (h *Hedge) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := h.Stats()
		_ = yield("calls_total", float64(s.Calls)) &&
			yield("hedged_total", float64(s.Hedged)) &&
			yield("second_won_total", float64(s.SecondWon)) &&
			yield("denied_total", float64(s.Denied)) &&
			yield("running", float64(s.Running)) &&
			yield("late_panics_total", float64(s.LatePanics)) &&
			yield("delay_seconds", s.Delay.Seconds())
	}
}
