package timeout

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/configdata"
	"github.com/backstay-go/backstay/internal/failure"
)

// Config is the data of a Timeout: plain, comparable, JSON in snake_case with durations as "250ms". The zero Config is valid
// and means the defaults. Hold it as a named field, never embed it, since its JSON methods would be promoted. Every field
// may be changed while running by [Timeout.Reconfigure].
type Config struct {
	// Name appears in errors and metrics. Default "timeout".
	Name string `json:"name"`
	// After is how long the operation may take. Default 1s; negative is off: only the caller's own deadline counts.
	After time.Duration `json:"after"`
}

// Validate reports every field that is out of range, or nil. Every Config is valid today.
func (c Config) Validate() error { return nil }

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "timeout"
	}
	c.After = configdata.Default(c.After, time.Second)
	return c
}

// MarshalJSON writes the fields that are set; a negative one is "off".
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads a whole Config and refuses unknown fields.
func (c *Config) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }

// ErrTimeout is what errors.Is finds in every error of a Timeout that ran out.
var ErrTimeout = errors.New("timeout: the operation took too long")

// Error says that the operation was given up. Whether it took effect is in doubt. It answers errors.Is for [ErrTimeout],
// context.DeadlineExceeded and what it wraps.
type Error struct {
	Name  string        // of the Timeout
	After time.Duration // how long the operation had
	Err   error         // what the operation returned
}

// Error names the timeout and the operation's own error.
func (e *Error) Error() string {
	return fmt.Sprintf("timeout %q: no answer within %v: %v", e.Name, e.After, e.Err)
}

// Is reports whether target is [ErrTimeout] or context.DeadlineExceeded.
func (e *Error) Is(target error) bool {
	return target == ErrTimeout || target == context.DeadlineExceeded
}

// Unwrap returns the operation's error.
func (e *Error) Unwrap() error { return e.Err }

// Timeout is true, as net.Error has it.
func (e *Error) Timeout() bool { return true }

// Rejected forwards what the operation's error says: a caller that waited in a queue until the timeout never ran.
func (e *Error) Rejected() bool { return failure.Rejected(e.Err) }

// Permanent forwards what the operation's error says.
func (e *Error) Permanent() bool { return failure.Permanent(e.Err) }

// RetryAfter forwards what the operation's error says.
func (e *Error) RetryAfter() time.Duration { return failure.RetryAfter(e.Err) }

// Timeout bounds the time of calls. Make it with [New]; the zero value is not usable. It is safe for concurrent use, starts
// no goroutine but those of [Abandon] and needs no closing.
type Timeout struct {
	onLatePanic func(*Panic)
	base        time.Time
	cfg         atomic.Pointer[Config]
	calls       atomic.Int64
	timedOut    atomic.Int64
	abandoned   atomic.Int64
	latePanics  atomic.Int64
}

// Option sets behaviour that is fixed at construction.
type Option func(*Timeout)

// OnLatePanic calls hook when a function panics after [Abandon] has given it up, on the goroutine of the function. The panic
// goes no further, since nobody is left who could recover it; without a hook it is only counted. The hook must not panic; nil
// panics.
func OnLatePanic(hook func(*Panic)) Option {
	if hook == nil {
		panic("timeout: OnLatePanic: the function is nil")
	}
	return func(t *Timeout) { t.onLatePanic = hook }
}

// New returns a Timeout. It panics on a Config that Validate rejects.
func New(cfg Config, opts ...Option) *Timeout {
	t := &Timeout{base: time.Now()}
	if err := t.Reconfigure(cfg); err != nil {
		panic(err)
	}
	for _, opt := range opts {
		opt(t)
	}
	return t
}

// Do runs op with a context that ends in time. It blocks until op returns. It returns op's error as it is, or a *[Error]
// around it when this timeout was the reason.
func (t *Timeout) Do(ctx context.Context, op func(context.Context) error) error {
	cfg := t.begin()
	if cfg.After < 0 {
		return op(ctx)
	}
	limited := t.newContext(ctx, cfg.After)
	defer limited.end(returned)
	return limited.judge(cfg, op(limited))
}

// Wrap returns fn bounded by t. The result is safe for concurrent use when fn is.
func Wrap[In, Out any](t *Timeout, fn func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	if t == nil || fn == nil {
		panic("timeout: Wrap: the timeout or the function is nil")
	}
	return func(ctx context.Context, in In) (Out, error) {
		cfg := t.begin()
		if cfg.After < 0 {
			return fn(ctx, in)
		}
		limited := t.newContext(ctx, cfg.After)
		defer limited.end(returned)
		out, err := fn(limited, in)
		return out, limited.judge(cfg, err)
	}
}

// cause is what context.Cause tells of a context whose time is up.
type cause struct{}

func (*cause) Error() string { return "timeout: the operation took too long" }
func (*cause) Is(target error) bool {
	return target == ErrTimeout || target == context.DeadlineExceeded
}

func (t *Timeout) begin() *Config {
	t.calls.Add(1)
	return t.cfg.Load()
}

// judge wraps err when the timeout of c is the reason for it, and counts that once. A call without a timeout has no c.
func (c *callContext) judge(cfg *Config, err error) error {
	if err == nil || c == nil {
		return err
	}
	if c.Err() == nil && c.overdue() { // the operation may have a timer of its own for the deadline, and it may be the first
		c.end(timedOut)
	}
	if c.outcome.Load() != timedOut {
		return err
	}
	if c.counted.CompareAndSwap(false, true) {
		c.t.timedOut.Add(1)
	}
	return &Error{Name: cfg.Name, After: cfg.After, Err: err}
}

// Reconfigure replaces the Config for calls that begin afterwards. It returns what Validate returns, and then changes
// nothing.
func (t *Timeout) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	t.cfg.Store(&cfg)
	return nil
}

// Config returns the Config in force, with defaults filled in.
func (t *Timeout) Config() Config { return *t.cfg.Load() }

// Stats is a snapshot. Calls, TimedOut and LatePanics count since New.
type Stats struct {
	Calls      int64 // calls begun, in either form
	TimedOut   int64 // of these, how many the timeout ended
	Abandoned  int64 // functions that nobody waits for any more and that run still
	LatePanics int64 // functions that panicked when nobody waited for them any more
}

// Stats returns the numbers of now.
func (t *Timeout) Stats() Stats {
	return Stats{Calls: t.calls.Load(), TimedOut: t.timedOut.Load(), Abandoned: t.abandoned.Load(), LatePanics: t.latePanics.Load()}
}

// Describe returns the kind "timeout", the name and the Config, for consoles and telemetry.
func (t *Timeout) Describe() (kind, name string, config any) {
	cfg := t.Config()
	return "timeout", cfg.Name, cfg
}

// Metrics yields the numbers of Stats by name.
func (t *Timeout) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := t.Stats()
		_ = yield("calls_total", float64(s.Calls)) &&
			yield("timed_out_total", float64(s.TimedOut)) &&
			yield("abandoned", float64(s.Abandoned)) &&
			yield("late_panics_total", float64(s.LatePanics))
	}
}
