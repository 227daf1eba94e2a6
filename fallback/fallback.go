package fallback

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"

	"github.com/backstay-go/backstay/configdata"
)

// Config is the data of a Fallback: plain, comparable, JSON in snake_case. The zero Config is valid and means the defaults.
// Hold it as a named field, never embed it, since its JSON methods would be promoted. It may be changed while running by
// [Fallback.Reconfigure].
type Config struct {
	// Name appears in errors, events and metrics. Default "fallback".
	Name string `json:"name"`
}

// Validate reports every field that is out of range, or nil. Every Config is valid today.
func (c Config) Validate() error { return nil }

// MarshalJSON writes the fields that are set.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads a whole Config and refuses unknown fields.
func (c *Config) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }

// Fallback counts and reports the use of alternatives. Make it with [New]; the zero value is not usable. It is safe for
// concurrent use, starts no goroutine and needs no closing.
type Fallback struct {
	cfg    atomic.Pointer[Config]
	onUse  func(Event)
	used   atomic.Int64
	failed atomic.Int64
}

// Event tells the hook of [OnUse] which alternative answered, and why it was asked.
type Event struct {
	Name        string
	Alternative int // counted from 0
	Cause       error
}

// Option sets behaviour that is fixed at construction.
type Option func(*Fallback)

// OnUse calls hook after an alternative has answered, on the caller's goroutine. nil panics.
func OnUse(hook func(Event)) Option {
	if hook == nil {
		panic("fallback: OnUse: the function is nil")
	}
	return func(f *Fallback) { f.onUse = hook }
}

// New returns a Fallback. It panics on a Config that Validate rejects.
func New(cfg Config, opts ...Option) *Fallback {
	f := &Fallback{}
	if err := f.Reconfigure(cfg); err != nil {
		panic(err)
	}
	for _, opt := range opts {
		opt(f)
	}
	return f
}

// Alternative answers in place of an operation that failed with cause.
type Alternative[In, Out any] = func(ctx context.Context, in In, cause error) (Out, error)

// errNotMine is how an alternative made by Only passes to the next.
var errNotMine = errors.New("fallback: not an error of this class")

// Only limits an alternative to a class of errors: it is passed over unless class says yes to the cause. class and
// alternative must be safe for concurrent use; nil panics.
func Only[In, Out any](class func(error) bool, alternative Alternative[In, Out]) Alternative[In, Out] {
	if class == nil || alternative == nil {
		panic("fallback: Only: the class or the alternative is nil")
	}
	return func(ctx context.Context, in In, cause error) (Out, error) {
		if !class(cause) {
			var none Out
			return none, errNotMine
		}
		return alternative(ctx, in, cause)
	}
}

// Wrap returns fn with alternatives. The result is safe for concurrent use when the functions are, and adds no allocation
// when fn succeeds. Where no alternative applies the error of fn is returned as it is; where they failed, a *[Error]. It
// panics without an alternative.
func Wrap[In, Out any](f *Fallback, fn func(context.Context, In) (Out, error), alternatives ...Alternative[In, Out]) func(context.Context, In) (Out, error) {
	if f == nil || fn == nil {
		panic("fallback: Wrap: the fallback or the function is nil")
	}
	if len(alternatives) == 0 || slices.ContainsFunc(alternatives, func(a Alternative[In, Out]) bool { return a == nil }) {
		panic("fallback: Wrap: there is no alternative, or one is nil")
	}
	alternatives = slices.Clone(alternatives)
	return func(ctx context.Context, in In) (Out, error) {
		out, err := fn(ctx, in)
		if err == nil || ctx.Err() != nil {
			return out, err
		}
		var errs []error
		for i, alternative := range alternatives {
			answer, alternativeErr := alternative(ctx, in, err)
			if alternativeErr == nil {
				f.answered(ctx, i, err)
				return answer, nil
			}
			if alternativeErr != errNotMine {
				errs = append(errs, alternativeErr)
			}
		}
		return out, f.giveUp(err, errs)
	}
}

func (f *Fallback) answered(ctx context.Context, alternative int, cause error) {
	f.used.Add(1)
	if o, ok := ctx.Value(observationKey{}).(*Observation); ok {
		o.cause.Store(&cause)
	}
	if f.onUse != nil {
		f.onUse(Event{Name: f.cfg.Load().Name, Alternative: alternative, Cause: cause})
	}
}

func (f *Fallback) giveUp(cause error, errs []error) error {
	if len(errs) == 0 {
		return cause
	}
	f.failed.Add(1)
	return &Error{Name: f.cfg.Load().Name, Err: cause, Alternatives: errs}
}

// Reconfigure replaces the Config. It returns what Validate returns, and then changes nothing.
func (f *Fallback) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.Name == "" {
		cfg.Name = "fallback"
	}
	f.cfg.Store(&cfg)
	return nil
}

// Config returns the Config in force, with defaults filled in.
func (f *Fallback) Config() Config { return *f.cfg.Load() }

// Stats is a snapshot, counted since New.
type Stats struct {
	Used   int64 // calls that an alternative answered
	Failed int64 // calls whose alternatives failed too
}

// Stats returns the numbers of now.
func (f *Fallback) Stats() Stats { return Stats{Used: f.used.Load(), Failed: f.failed.Load()} }

// Describe returns the kind "fallback", the name and the Config, for consoles and telemetry.
func (f *Fallback) Describe() (kind, name string, config any) {
	cfg := f.Config()
	return "fallback", cfg.Name, cfg
}

// Metrics yields the numbers of Stats by name.
func (f *Fallback) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := f.Stats()
		_ = yield("used_total", float64(s.Used)) && yield("failed_total", float64(s.Failed))
	}
}

// Error says that the operation and its alternatives failed. It answers errors.Is for all of them.
type Error struct {
	Name         string
	Err          error   // of the operation
	Alternatives []error // of the alternatives that ran
}

// Error gives the first cause, then what the alternatives returned.
func (e *Error) Error() string {
	return fmt.Sprintf("fallback %q: %v; alternatives: %v", e.Name, e.Err, errors.Join(e.Alternatives...))
}

// Unwrap returns the first cause, then the errors of the alternatives.
func (e *Error) Unwrap() []error { return append([]error{e.Err}, e.Alternatives...) }

type observationKey struct{}

// Observation tells whether answers were degraded. It is safe for concurrent use.
type Observation struct{ cause atomic.Pointer[error] }

// Observe returns a context to make calls with, and an Observation that tells afterwards whether an alternative answered any
// of them.
func Observe(ctx context.Context) (context.Context, *Observation) {
	o := &Observation{}
	return context.WithValue(ctx, observationKey{}, o), o
}

// Degraded reports whether an alternative answered.
func (o *Observation) Degraded() bool { return o.cause.Load() != nil }

// Cause is why an alternative was asked, the latest if there were several, or nil.
func (o *Observation) Cause() error {
	if cause := o.cause.Load(); cause != nil {
		return *cause
	}
	return nil
}
