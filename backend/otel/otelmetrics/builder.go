package otelmetrics

import (
	"cmp"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/metric"
)

// builder makes the instruments of a Registration. Objects of one kind share theirs.
type builder struct {
	meter       metric.Meter
	instruments map[string]instrument // by OpenTelemetry's name
	seen        map[[2]string]bool    // by kind and name
	faults      []error
}

type instrument struct {
	metric.Float64Observable
	base string
}

// source asks an object what it yields.
func (b *builder) source(o Object, most int) (*source, error) {
	if o == nil {
		return nil, errors.New("it is nil")
	}
	s := &source{object: o, instruments: map[string]metric.Float64Observable{}, series: map[string]*series{}}
	var names []string
	err := guarded(func() {
		s.kind, s.name, _ = o.Describe()
		for name := range o.Metrics() {
			names = append(names, name)
		}
	})
	if err != nil {
		return nil, err
	}
	if b.seen[[2]string{scopePrefix(s.kind), s.name}] {
		return nil, fmt.Errorf("another object of the kind %q has the name %.100q", s.kind, s.name)
	}
	b.seen[[2]string{scopePrefix(s.kind), s.name}] = true
	if len(names) > most {
		return nil, fmt.Errorf("%s %.100q has %d series: more than MaxSeries, %d", s.kind, s.name, len(names), most)
	}
	var faults []error
	for _, name := range names {
		faults = append(faults, b.add(s, name))
	}
	return s, errors.Join(faults...)
}

func (b *builder) add(s *source, name string) error {
	m, err := parse(name)
	if err != nil {
		return err
	}
	made, err := b.instrument(s.kind, m)
	if err != nil {
		return err
	}
	s.instruments[m.base] = made
	s.add(name, m)
	return nil
}

func (b *builder) instrument(kind string, m metricName) (metric.Float64Observable, error) {
	name := m.instrumentName(kind)
	if was, ok := b.instruments[name]; ok {
		if was.base != m.base {
			return nil, fmt.Errorf("the metrics %s and %s of the kind %q would both be called %s", was.base, m.base, kind, name)
		}
		return was.Float64Observable, nil
	}
	var made metric.Float64Observable
	var err error
	description := metric.WithDescription(fmt.Sprintf("%s of the kind %s, as backstay's Metrics yields it.", m.base, cmp.Or(kind, "object")))
	if m.counter {
		made, err = b.meter.Float64ObservableCounter(name, description, metric.WithUnit(m.unit()))
	} else {
		made, err = b.meter.Float64ObservableGauge(name, description, metric.WithUnit(m.unit()))
	}
	if err != nil {
		return nil, err
	}
	b.instruments[name] = instrument{made, m.base}
	return made, nil
}

// unit is in UCUM. A count has no unit that Prometheus would add to a name.
func (m metricName) unit() string {
	if m.seconds {
		return "s"
	}
	return ""
}

func (b *builder) observables() []metric.Observable {
	all := make([]metric.Observable, 0, len(b.instruments))
	for _, i := range b.instruments {
		all = append(all, i.Float64Observable)
	}
	return all
}
