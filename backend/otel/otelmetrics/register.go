package otelmetrics

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Scope is the name of the instrumentation scope.
const Scope = "github.com/backstay-go/backstay/backend/otel/otelmetrics"

// Version is the version of the set of names, and of the instrumentation scope. It is raised when a name changes its meaning.
const Version = "1"

// Object is what can be exported: every object of backstay, and whatever else has these methods. Metrics yields each name once.
type Object interface {
	Describe() (kind, name string, config any)
	Metrics() iter.Seq2[string, float64]
}

// Registration is some objects' link to a meter provider. It is safe for concurrent use, and an Object itself, of the kind
// telemetry. Its zero value is not usable; call Register.
type Registration struct {
	cfg     Config
	sources []*source
	handle  metric.Registration
	closing sync.Once
	closed  error

	dropped, failures atomic.Uint64
}

// source is an object with its series. The names of its instruments do not change.
type source struct {
	object      Object
	kind, name  string
	instruments map[string]metric.Float64Observable // by name without labels

	mu     sync.Mutex
	series map[string]*series // by name with labels
}

type series struct {
	instrument metric.Float64Observable
	attributes metric.ObserveOption
}

// Register makes instruments for what the objects yield now and one callback that asks the objects whenever a reader of the provider
// collects. It asks each object once. The error joins everything that is wrong, and then nothing is registered: a Config that
// Validate rejects, a nil provider or object, an object that panics, a name against the rule, more series than MaxSeries, a counter and a
// gauge that differ in _total alone, two objects of one kind and name, and what the provider says.
func Register(provider metric.MeterProvider, cfg Config, objects ...Object) (*Registration, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Registration{cfg: cfg.withDefaults()}
	if provider == nil {
		return nil, r.fault(errors.New("the provider is nil"))
	}
	b := &builder{
		meter:       provider.Meter(Scope, metric.WithInstrumentationVersion(Version)),
		instruments: map[string]instrument{}, seen: map[[2]string]bool{},
	}
	for i, o := range objects {
		s, err := b.source(o, r.cfg.MaxSeries)
		if err != nil {
			b.faults = append(b.faults, r.fault(fmt.Errorf("object %d: %w", i, err)))
			continue
		}
		r.sources = append(r.sources, s)
	}
	if err := errors.Join(b.faults...); err != nil {
		return nil, err
	}
	handle, err := b.meter.RegisterCallback(r.collect, b.observables()...)
	if err != nil {
		return nil, r.fault(err)
	}
	r.handle = handle
	return r, nil
}

func (r *Registration) fault(err error) error {
	return fmt.Errorf("otelmetrics %q: %w", r.cfg.Name, err)
}

// Close ends the export and waits for a collection under way, so it must not be called by an object's Metrics. Further calls return
// what the first did.
func (r *Registration) Close() error {
	r.closing.Do(func() { r.closed = r.handle.Unregister() })
	return r.closed
}

// Stats is what a Registration does.
type Stats struct {
	// Objects is how many objects it exports, Series how many series they have.
	Objects, Series int
	// Dropped counts the values left out: of a metric that Register did not see, or beyond MaxSeries. Each collection counts.
	Dropped uint64
	// Failures counts the times that an object panicked.
	Failures uint64
}

// Stats is a snapshot; it asks no object.
func (r *Registration) Stats() Stats {
	st := Stats{Objects: len(r.sources), Dropped: r.dropped.Load(), Failures: r.failures.Load()}
	for _, s := range r.sources {
		s.mu.Lock()
		st.Series += len(s.series)
		s.mu.Unlock()
	}
	return st
}

// Describe returns "telemetry", the name and the Config, for consoles and telemetry.
func (r *Registration) Describe() (kind, name string, config any) {
	return "telemetry", r.cfg.Name, r.cfg
}

// Metrics yields the numbers of Stats by name.
func (r *Registration) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := r.Stats()
		_ = yield("objects", float64(s.Objects)) && yield("series", float64(s.Series)) &&
			yield("dropped_total", float64(s.Dropped)) && yield("failures_total", float64(s.Failures))
	}
}

// collect is the callback. Readers may call it at the same time.
func (r *Registration) collect(ctx context.Context, to metric.Observer) error {
	var faults []error
	for _, s := range r.sources {
		if ctx.Err() != nil {
			return errors.Join(append(faults, context.Cause(ctx))...)
		}
		err := guarded(func() { r.observe(s, to) })
		if err != nil {
			r.failures.Add(1)
			faults = append(faults, r.fault(fmt.Errorf("%s %q: %w", s.kind, s.name, err)))
		}
	}
	return errors.Join(faults...)
}

func (r *Registration) observe(s *source, to metric.Observer) {
	for name, value := range s.object.Metrics() {
		if math.IsNaN(value) {
			continue
		}
		if known := s.find(name, r.cfg.MaxSeries); known != nil {
			to.ObserveFloat64(known.instrument, value, known.attributes)
		} else {
			r.dropped.Add(1)
		}
	}
}

// find returns the series of a name, made when it is new, or nil if it may not be exported.
func (s *source) find(name string, most int) *series {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.series[name]; known != nil {
		return known
	}
	if len(s.series) >= most {
		return nil
	}
	m, err := parse(name)
	if err != nil || s.instruments[m.base] == nil {
		return nil
	}
	return s.add(name, m)
}

func (s *source) add(name string, m metricName) *series {
	attributes := append([]attribute.KeyValue{NameKey.String(clip(s.name))}, m.labels...)
	made := &series{s.instruments[m.base], metric.WithAttributeSet(attribute.NewSet(attributes...))}
	s.series[name] = made
	return made
}

// guarded turns a panic into an error.
func guarded(fn func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panics: %.500v", v)
		}
	}()
	fn()
	return nil
}
