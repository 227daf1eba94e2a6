package saga

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Runner works on the instances of the definitions it knows: it starts them, goes on with those that any other node left
// behind, and compensates. Any number of runners share a store. A Runner is safe for concurrent use; create it with
// NewRunner. It owns no resource: goroutines live only while Run does, and the store is the caller's to close.
type Runner struct {
	store Store
	defs  map[Ref]definition
	known []Ref
	// implied are the definitions that are known only as children of others.
	implied map[Ref]bool
	owner   string
	log     *slog.Logger
	config  atomic.Pointer[Config]
	wake    chan struct{} // holds a token when there may be something to claim
	stats   counters
	steps   stepStats
	backlog atomic.Pointer[Backlog]
	// observed is set when somebody asked for numbers since the store was last looked at for them.
	observed atomic.Bool

	onTransition []func(Instance, Event)
	onStuck      []func(Instance)

	mu      sync.Mutex
	session *session // while Run runs
	waiters map[string]*waiter
}

// Part is what NewRunner puts a Runner together from: a *Definition of any State, or an Option.
type Part interface {
	setUp(r *Runner) error
}

// Option sets up behaviour of a Runner that is not data.
type Option func(*Runner) error

func (o Option) setUp(r *Runner) error {
	if o == nil {
		return errors.New("saga: NewRunner: an option is nil")
	}
	return o(r)
}

// WithLogger logs lost leases and trouble with the store as warnings, stuck instances as errors. The default is silence.
func WithLogger(l *slog.Logger) Option {
	return func(r *Runner) error {
		if l == nil {
			return errors.New("saga: WithLogger: the logger is nil")
		}
		r.log = l
		return nil
	}
}

// OnTransition calls fn after each change of an instance that this runner recorded, in the instance's order, outside of
// locks. It runs on the goroutine that works on the instance, which waits for it. The Instance has the new Progress; its
// lease and times may be those from before. Hooks are not called for what other runners record.
func OnTransition(fn func(Instance, Event)) Option {
	return func(r *Runner) error {
		if fn == nil {
			return errors.New("saga: OnTransition: the function is nil")
		}
		r.onTransition = append(r.onTransition, fn)
		return nil
	}
}

// OnStuck calls fn after an instance got stuck in this runner's hands: somebody should be told. As OnTransition otherwise.
func OnStuck(fn func(Instance)) Option {
	return func(r *Runner) error {
		if fn == nil {
			return errors.New("saga: OnStuck: the function is nil")
		}
		r.onStuck = append(r.onStuck, fn)
		return nil
	}
}

// NewRunner makes a runner over a store from at least one definition, and options. It returns an error for a Config that
// Validate rejects, a nil store, no definitions, one given twice, or an option that refuses its argument. Instances can be
// started at once, and are worked on by whichever runner of the store is in Run.
func NewRunner(store Store, cfg Config, parts ...Part) (*Runner, error) {
	if store == nil {
		return nil, errors.New("saga: NewRunner: the store is nil")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	host, _ := os.Hostname()
	r := &Runner{
		store: store, defs: map[Ref]definition{}, implied: map[Ref]bool{}, log: slog.New(slog.DiscardHandler),
		owner:   fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rand.Text()[:8]),
		wake:    make(chan struct{}, 1),
		waiters: map[string]*waiter{},
	}
	cfg = cfg.withDefaults()
	r.config.Store(&cfg)
	faults := []error{cfg.suits(store)}
	for _, p := range parts {
		if p == nil {
			p = Option(nil)
		}
		faults = append(faults, p.setUp(r))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if len(r.known) == 0 {
		return nil, errors.New("saga: NewRunner: no definitions")
	}
	r.steps = newStepStats(r.defs)
	return r, nil
}

// Config is the current configuration, defaults filled in.
func (r *Runner) Config() Config { return *r.config.Load() }

// Reconfigure replaces the configuration of a runner, also while it runs; attempts under way are not disturbed. It
// returns an error, and changes nothing, when cfg is invalid, has another Name, or asks for a Retention that the store does not know.
func (r *Runner) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	if was := r.Config().Name; cfg.Name != was {
		return fmt.Errorf("saga %q: Config.Name is %q: it cannot be changed", was, cfg.Name)
	}
	if err := cfg.suits(r.store); err != nil {
		return err
	}
	r.config.Store(&cfg)
	r.Notify()
	return nil
}

// Notify makes the runner look into the store at once. Call it after committing a transaction that created an instance.
// It never blocks; a runner that is not in Run looks when it starts.
func (r *Runner) Notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run claims instances and works on them until ctx is done, then drains: it takes nothing new, lets running attempts
// finish within Config.DrainTimeout, cancels the contexts of the rest, records what became of them, hands the leases back
// and returns nil. An attempt that ignores its context is waited for. Trouble with the store is logged, counted and
// outlasted. The only error is that of a second Run at the same time.
func (r *Runner) Run(ctx context.Context) error {
	s := newSession(ctx, r)
	r.mu.Lock()
	if r.session != nil {
		r.mu.Unlock()
		return fmt.Errorf("saga %q: Run is called while it runs", r.Config().Name)
	}
	r.session = s
	r.mu.Unlock()
	s.run(ctx)
	r.mu.Lock()
	r.session = nil
	r.mu.Unlock()
	return nil
}

func (r *Runner) register(d definition) {
	if r.defs[d.Ref()] == nil {
		r.known = append(r.known, d.Ref())
	}
	r.defs[d.Ref()] = d
}

// claimable lists the definitions that may be claimed together: all without a limit, and each with one alone.
func (r *Runner) claimable() (lists [][]Ref) {
	var free []Ref
	for _, ref := range r.known {
		if r.defs[ref].plan().limits.Concurrency > 0 {
			lists = append(lists, []Ref{ref})
		} else {
			free = append(free, ref)
		}
	}
	if len(free) > 0 {
		lists = append(lists, free)
	}
	return lists
}

func (r *Runner) current() *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.session
}

// recorded tells everybody who wants to know of a change that is in the store; h is nil for one that was made by hand. Those who wait for
// the end of an instance that is held are told when its slot is free.
func (r *Runner) recorded(in Instance, e *Event, h *hold) {
	if e != nil {
		r.stats.count(in, *e)
		r.steps.count(in.Name, *e)
		for _, fn := range r.onTransition {
			fn(in, *e)
		}
	}
	if in.Status == Stuck {
		r.log.Error("saga stuck", "saga", in.Name, "id", in.ID, "step", in.Step, "direction", in.Direction, "error", in.Error)
		for _, fn := range r.onStuck {
			fn(in)
		}
	}
	if h == nil && !in.Status.Active() {
		r.signal(in.ID, nil)
	}
}

// trouble reports a failed call of the store.
func (r *Runner) trouble(call string, err error) {
	r.stats.storeErrors.Add(1)
	r.log.Warn("saga store", "runner", r.Config().Name, "call", call, "error", err)
}

// Unknown returns up to limit unfinished instances whose definition or version this runner does not know. They are never
// touched here: they wait for a node that has the definition.
func (r *Runner) Unknown(ctx context.Context, limit int) ([]Instance, error) {
	return r.store.List(ctx, Filter{
		Statuses: []Status{Running, Compensating, Stuck}, Except: slices.Clone(r.known), Limit: limit,
	})
}

// nap waits for d, a wake-up or the end of ctx.
func (r *Runner) nap(ctx context.Context, d time.Duration) (woken bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-r.wake:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}
