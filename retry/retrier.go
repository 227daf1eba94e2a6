package retry

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/backstay-go/backstay/internal/failure"
)

// Retrier repeats failed calls. Make it with [New]; the zero value is not usable. It is safe for concurrent use, starts no
// goroutine and needs no closing.
type Retrier struct {
	cfg       atomic.Pointer[Config]
	retryable func(error) bool // nil: Retryable
	backOff   func() backoff.BackOff
	budget    *Budget
	onRetry   func(Event)
	onGiveUp  func(Event)

	calls     atomic.Int64
	retries   atomic.Int64
	recovered atomic.Int64
	gaveUp    atomic.Int64
}

// Event is what the hooks are told.
type Event struct {
	Name    string
	Attempt int           // the attempt that failed, from 1
	Delay   time.Duration // until the next one; 0 when given up
	Err     error         // what the attempt returned, or for [OnGiveUp] what the caller gets
}

// Option sets behaviour that is fixed at construction.
type Option func(*Retrier)

// WithRetryable replaces the test of which errors are worth a further attempt. By default that is every error that is
// neither permanent, nor a local rejection, nor the caller's own cancellation. The function must be safe for concurrent use;
// nil panics. Errors made by backoff.Permanent are never repeated.
func WithRetryable(retryable func(error) bool) Option {
	if retryable == nil {
		panic("retry: WithRetryable: the function is nil")
	}
	return func(r *Retrier) { r.retryable = retryable }
}

// WithBackOff takes the delays from a schedule in place of InitialInterval, MaxInterval, Multiplier and Jitter. The factory is
// called once for each call that fails, since a backoff.BackOff is stateful and must not be shared; backoff.Stop ends the
// attempts. MaxAttempts still counts. nil panics.
func WithBackOff(factory func() backoff.BackOff) Option {
	if factory == nil {
		panic("retry: WithBackOff: the factory is nil")
	}
	return func(r *Retrier) { r.backOff = factory }
}

// WithBudget lets r repeat only what budget pays for. One Budget may serve any number of retriers, so that together they stay
// within it. nil panics.
func WithBudget(budget *Budget) Option {
	if budget == nil {
		panic("retry: WithBudget: the budget is nil")
	}
	return func(r *Retrier) { r.budget = budget }
}

// OnRetry calls hook before each delay, on the caller's goroutine. nil panics.
func OnRetry(hook func(Event)) Option {
	if hook == nil {
		panic("retry: OnRetry: the function is nil")
	}
	return func(r *Retrier) { r.onRetry = hook }
}

// OnGiveUp calls hook when a call that was worth repeating is given up, on the caller's goroutine. nil panics.
func OnGiveUp(hook func(Event)) Option {
	if hook == nil {
		panic("retry: OnGiveUp: the function is nil")
	}
	return func(r *Retrier) { r.onGiveUp = hook }
}

// New returns a Retrier. It panics on a Config that Validate rejects: call Validate first on input from outside.
func New(cfg Config, opts ...Option) *Retrier {
	r := &Retrier{}
	if err := r.Reconfigure(cfg); err != nil {
		panic(err)
	}
	for _, opt := range opts {
		opt(r)
	}
	return r
}

// Retryable is the default test of which errors are worth a further attempt, for others to build on: not those whose own
// methods say that they are permanent or a local rejection.
func Retryable(err error) bool { return !failure.Permanent(err) && !failure.Rejected(err) }

// Do runs op until it succeeds, fails for good or is given up. It blocks while op runs and during the delays. It returns the
// error of op as it is when that was not worth repeating, the context's error when that was done before the first attempt,
// and a *[Error] otherwise.
func (r *Retrier) Do(ctx context.Context, op func(context.Context) error) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	err := op(ctx)
	if err == nil {
		r.budget.deposit()
		return nil
	}
	s := sequence{r: r, cfg: r.cfg.Load()}
	for s.again(ctx, err) {
		if err = op(s.attemptContext(ctx)); err == nil {
			s.recovered()
			return nil
		}
	}
	return s.end(err)
}

// Wrap returns fn repeated by r. The result is safe for concurrent use when fn is, and adds no allocation to a call that
// succeeds at once. Beside an error it returns the value of the last attempt.
func Wrap[In, Out any](r *Retrier, fn func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	if r == nil || fn == nil {
		panic("retry: Wrap: the retrier or the function is nil")
	}
	return func(ctx context.Context, in In) (Out, error) {
		if err := r.begin(ctx); err != nil {
			var none Out
			return none, err
		}
		out, err := fn(ctx, in)
		if err == nil {
			r.budget.deposit()
			return out, nil
		}
		s := sequence{r: r, cfg: r.cfg.Load()}
		for s.again(ctx, err) {
			if out, err = fn(s.attemptContext(ctx), in); err == nil {
				s.recovered()
				return out, nil
			}
		}
		return out, s.end(err)
	}
}

func (r *Retrier) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.calls.Add(1)
	return nil
}

// sequence is the state of one call from its first failure on.
type sequence struct {
	r        *Retrier
	cfg      *Config
	backOff  backoff.BackOff
	attempts int   // that were made, the rejected ones included
	ran      int   // of these, how often the operation ran
	last     error // of the last attempt that ran, or the rejection if none did
	second   *secondAttempt
	stop     error
	gaveUp   bool
}

// again decides on the error of an attempt, and waits until the next one is due.
func (s *sequence) again(ctx context.Context, err error) bool {
	s.attempts++
	plain := failure.Plain(err)
	rejected := !plain && failure.Rejected(err)
	if !rejected {
		s.ran++
	}
	if !rejected || s.ran == 0 {
		s.last = err
	}
	ended := ctx.Err()
	if !s.worthRepeating(ended, err, plain, rejected) {
		s.stop = rejection(rejected && s.ran > 0, err)
		s.gaveUp = s.stop != nil
		return false
	}
	s.gaveUp = true
	delay, ok := s.next(err, plain)
	if !ok {
		return false
	}
	if s.stop = s.prevented(ctx, ended, delay); s.stop != nil {
		return false
	}
	if delay > 0 || s.r.onRetry != nil {
		if s.stop = s.pause(ctx, delay, err); s.stop != nil {
			return false
		}
	}
	s.r.retries.Add(1)
	return true
}

// rejection is err where a later attempt was rejected: the caller then learns of both.
func rejection(later bool, err error) error {
	if later {
		return err
	}
	return nil
}

// worthRepeating judges err; ended is the error of the caller's context.
func (s *sequence) worthRepeating(ended, err error, plain, rejected bool) bool {
	if ended == context.Canceled && errors.Is(err, context.Canceled) {
		return false
	}
	if !plain {
		if _, permanent := errors.AsType[*backoff.PermanentError](err); permanent {
			return false
		}
	}
	if s.r.retryable != nil {
		return s.r.retryable(err)
	}
	return plain || !rejected && !failure.Permanent(err)
}

// next is the delay before the next attempt, if there is to be one.
func (s *sequence) next(err error, plain bool) (time.Duration, bool) {
	if s.cfg.MaxAttempts > 0 && s.attempts >= s.cfg.MaxAttempts {
		return 0, false
	}
	var wish time.Duration
	if !plain {
		wish = failure.RetryAfter(err)
	}
	if s.cfg.MaxRetryAfter > 0 && wish > s.cfg.MaxRetryAfter {
		return 0, false
	}
	if s.r.backOff == nil {
		return max(wish, s.cfg.delay(s.attempts)), true
	}
	if s.backOff == nil {
		s.backOff = s.r.backOff()
	}
	delay := s.backOff.NextBackOff()
	return max(wish, delay), delay != backoff.Stop
}

// prevented returns what is in the way of a further attempt, or takes it from the budget.
func (s *sequence) prevented(ctx context.Context, ended error, delay time.Duration) error {
	if ended != nil {
		return ended
	}
	if delay > 0 {
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= delay {
			return context.DeadlineExceeded
		}
	}
	if !s.r.budget.withdraw() {
		return ErrBudget
	}
	return nil
}

// pause calls the hook and waits for the delay, or returns the error of the context that ended meanwhile.
func (s *sequence) pause(ctx context.Context, delay time.Duration, err error) error {
	if s.r.onRetry != nil {
		s.r.onRetry(Event{Name: s.cfg.Name, Attempt: s.attempts, Delay: delay, Err: err})
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	ended := ctx.Err()
	if ended != nil {
		s.r.budget.giveBack()
	}
	return ended
}

// recovered counts a call that succeeded after a retry.
func (s *sequence) recovered() {
	s.r.recovered.Add(1)
	s.r.budget.deposit()
}

// end is the error of a call whose last attempt returned err.
func (s *sequence) end(err error) error {
	if !s.gaveUp {
		return err
	}
	s.r.gaveUp.Add(1)
	final := &Error{Name: s.cfg.Name, Attempts: s.ran, Err: s.last, Stop: s.stop}
	if s.r.onGiveUp != nil {
		s.r.onGiveUp(Event{Name: s.cfg.Name, Attempt: s.attempts, Err: final})
	}
	return final
}

type attemptKey struct{}

// The contexts of attempts are context.WithValue for a value of one kind. Those of the second and of the third are one
// allocation seen as two types, since most calls that fail make up to three attempts.
type (
	secondAttempt struct{ context.Context }
	thirdAttempt  secondAttempt
	laterAttempt  struct {
		context.Context
		number int
	}
)

func (c *secondAttempt) Value(key any) any { return attemptValue(c.Context, key, 2) }
func (c *thirdAttempt) Value(key any) any  { return attemptValue(c.Context, key, 3) }
func (c *laterAttempt) Value(key any) any  { return attemptValue(c.Context, key, c.number) }

func attemptValue(parent context.Context, key any, number int) any {
	if key == (attemptKey{}) {
		return number
	}
	return parent.Value(key)
}

// attemptContext is the context of the next attempt.
func (s *sequence) attemptContext(ctx context.Context) context.Context {
	switch s.attempts {
	case 1:
		s.second = &secondAttempt{ctx}
		return s.second
	case 2:
		return (*thirdAttempt)(s.second)
	default:
		return &laterAttempt{ctx, s.attempts + 1}
	}
}

// Attempt is the number of the attempt that runs with ctx: 1 for the first, and where no retrier is at work. With several
// retriers round each other it is that of the innermost one that is past its first attempt.
func Attempt(ctx context.Context) int {
	if n, ok := ctx.Value(attemptKey{}).(int); ok {
		return n
	}
	return 1
}

// Reconfigure replaces the Config for calls that fail for the first time afterwards. It returns what Validate returns, and
// then changes nothing.
func (r *Retrier) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	r.cfg.Store(&cfg)
	return nil
}

// Config returns the Config in force, with defaults filled in.
func (r *Retrier) Config() Config { return *r.cfg.Load() }

// Stats is a snapshot, counted since New.
type Stats struct {
	Calls     int64 // calls that made a first attempt
	Retries   int64 // attempts after the first
	Recovered int64 // calls that succeeded after a retry
	GaveUp    int64 // calls that ended in a *Error
}

// Stats returns the numbers of now. It is cheap and never slows a call; fields are read one after the other.
func (r *Retrier) Stats() Stats {
	return Stats{Calls: r.calls.Load(), Retries: r.retries.Load(), Recovered: r.recovered.Load(), GaveUp: r.gaveUp.Load()}
}

// Describe returns the kind "retry", the name and the Config, for consoles and telemetry.
func (r *Retrier) Describe() (kind, name string, config any) {
	cfg := r.Config()
	return "retry", cfg.Name, cfg
}

// Metrics yields the numbers of Stats by name.
func (r *Retrier) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := r.Stats()
		_ = yield("calls_total", float64(s.Calls)) &&
			yield("retries_total", float64(s.Retries)) &&
			yield("recovered_total", float64(s.Recovered)) &&
			yield("gave_up_total", float64(s.GaveUp))
	}
}
