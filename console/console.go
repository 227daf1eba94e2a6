package console

import (
	"context"
	"iter"
	"net/http"
	"slices"
	"sync"
)

// Object is what a Console shows: every pattern object of backstay, and anything of one's own with these two methods. An object that
// has also a method Health() error is shown as degraded while that returns an error. The methods must be safe for concurrent use and
// should not block: while one does, the page stands still, and nothing else. A panic is shown in place of the numbers.
type Object interface {
	// Describe tells what the object is, its name, and its configuration, which is shown as JSON with secrets struck out.
	Describe() (kind, name string, config any)
	// Metrics yields numbers by name. Those that end in _total only grow and are shown as rates. A name may have labels behind it, as in
	// step_attempts_total{saga="order",step="pay"}: numbers with the same labels make a table. One called lag is shown with its object.
	Metrics() iter.Seq2[string, float64]
}

// Console is the live page of a service and the JSON behind it: an http.Handler. It also makes the service's health handlers.
// Create it with New. It is safe for concurrent use.
//
// It takes a prefix from the pattern under which a ServeMux has it; under another router, use http.StripPrefix.
type Console struct {
	cfg       Config
	actions   []Action
	authorize func(*http.Request, Attempt) error
	crossSite *http.CrossOriginProtection
	turn      chan struct{} // held by the one who looks at the objects
	found     []finding     // by the one whose turn it is
	names     []string      // as above
	values    []float64     // as above

	mu      sync.Mutex
	entries []*entry // by id
	nextID  int
	axis    axis
	events  events
	seq     uint64
	viewers map[*viewer]struct{}
	gone    []int  // removed since the last look
	stop    func() // ends the sampler
	closed  bool
}

// Option gives a Console behaviour.
type Option func(*Console)

// New makes a Console that shows nothing yet: see Add. It starts nothing. It panics on a Config that Validate rejects and on nil options.
func New(cfg Config, opts ...Option) *Console {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	c := &Console{
		cfg:       cfg.withDefaults(),
		crossSite: http.NewCrossOriginProtection(),
		turn:      make(chan struct{}, 1),
		viewers:   make(map[*viewer]struct{}),
	}
	c.axis = newAxis(c.cfg.History)
	c.events.limit = c.cfg.Events
	for _, opt := range opts {
		if opt == nil {
			panic("console: an option is nil")
		}
		opt(c)
	}
	return c
}

// Config returns the configuration with defaults filled in.
func (c *Console) Config() Config { return c.cfg }

// Add shows the objects from now on and returns a function that takes them off again, which may be called more than once. An object
// that is shown already is shown twice. Add panics on a nil object, and calls Describe of each.
func (c *Console) Add(objects ...Object) (remove func()) {
	added := make([]*entry, len(objects))
	for i, o := range objects {
		if o == nil {
			panic("console: Add: an object is nil")
		}
		added[i] = newEntry(o)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range added {
		c.nextID++
		e.id = c.nextID
	}
	c.entries = append(c.entries, added...)
	return sync.OnceFunc(func() { c.remove(added) })
}

func (c *Console) remove(taken []*entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := make([]*entry, 0, len(c.entries))
	for _, e := range c.entries {
		if slices.Contains(taken, e) {
			if len(c.viewers) > 0 && e.sampled() {
				c.gone = append(c.gone, e.id)
			}
			continue
		}
		kept = append(kept, e)
	}
	c.entries = kept
}

// Close ends all streams, takes no new ones, refuses actions and makes the service not ready. It does not wait. A server that shuts
// down waits for its streams to end: give Close to its RegisterOnShutdown. Calling it again does nothing.
func (c *Console) Close() {
	c.mu.Lock()
	c.closed = true
	for v := range c.viewers {
		c.dismiss(v)
	}
	c.mu.Unlock()
}

// join lets a viewer in, whose first message is a snapshot, and starts the sampler for the first of them. It returns nil when there
// are too many.
func (c *Console) join() *viewer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.viewers) >= c.cfg.MaxViewers {
		return nil
	}
	if len(c.viewers) == 0 {
		c.events.told = c.events.count
	}
	v := &viewer{messages: make(chan []byte, backlog), dismissed: make(chan struct{})}
	v.messages <- frame("snapshot", c.snapshot())
	c.viewers[v] = struct{}{}
	if len(c.viewers) == 1 {
		ctx, cancel := context.WithCancel(context.Background())
		c.stop = cancel
		go c.sampleUntil(ctx)
	}
	return v
}

func (c *Console) leave(v *viewer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dismiss(v)
}

// dismiss is called with c.mu held.
func (c *Console) dismiss(v *viewer) {
	if _, there := c.viewers[v]; !there {
		return
	}
	delete(c.viewers, v)
	close(v.dismissed)
	if len(c.viewers) == 0 {
		c.stop()
		c.gone = nil
	}
}
