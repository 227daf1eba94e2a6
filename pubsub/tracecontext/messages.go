package tracecontext

import (
	"context"
	"maps"
	"strings"

	"github.com/backstay-go/backstay/pubsub"
)

// Names of the headers.
const (
	// HeaderTraceparent holds trace-id, parent-id and flags.
	HeaderTraceparent = "traceparent"
	// HeaderTracestate holds what the tracers on the way have added.
	HeaderTracestate = "tracestate"
)

// FromHeader returns the trace that the headers of a message carry, if it is valid.
func FromHeader(h pubsub.Header) (Trace, bool) {
	parent, n := find(h, HeaderTraceparent)
	if n != 1 {
		return Trace{}, false
	}
	state, n := find(h, HeaderTracestate)
	if n > 1 { // in an order that is lost
		state = ""
	}
	t, err := Parse(parent, state)
	return t, err == nil
}

// find returns a value of a header whose name is spelled in any case, and how many there are.
func find(h pubsub.Header, name string) (value string, n int) {
	for spelled, v := range h {
		if strings.EqualFold(spelled, name) {
			value = v
			n++
		}
	}
	return value, n
}

// Publisher makes a Publisher that sends messages to p with the trace of the context in their headers. Without a trace,
// and for a message that has a traceparent, it changes nothing. It panics on a nil p.
func Publisher(p pubsub.Publisher) pubsub.Publisher {
	if p == nil {
		panic("tracecontext: Publisher(nil)")
	}
	return publisher{p}
}

type publisher struct{ next pubsub.Publisher }

// Publish implements pubsub.Publisher.
func (p publisher) Publish(ctx context.Context, msgs ...pubsub.Message) error {
	t, ok := FromContext(ctx)
	if !ok {
		return p.next.Publish(ctx, msgs...)
	}
	traced := make([]pubsub.Message, len(msgs))
	for i, m := range msgs {
		m.Header = t.into(m.Header)
		traced[i] = m
	}
	return p.next.Publish(ctx, traced...)
}

// into returns h with the headers of t, in a copy, unless h has a traceparent.
func (t Trace) into(h pubsub.Header) pubsub.Header {
	if _, n := find(h, HeaderTraceparent); n > 0 {
		return h
	}
	out := make(pubsub.Header, len(h)+2)
	maps.Copy(out, h)
	maps.DeleteFunc(out, func(name, _ string) bool { return strings.EqualFold(name, HeaderTracestate) }) // of another trace
	out[HeaderTraceparent] = t.Traceparent()
	if t.State != "" {
		out[HeaderTracestate] = t.State
	}
	return out
}

// Handler makes a Handler that calls h with the trace of the message in its context, or with none if the message has no
// valid one. It panics on a nil h.
func Handler(h pubsub.Handler) pubsub.Handler {
	if h == nil {
		panic("tracecontext: Handler(nil)")
	}
	return func(ctx context.Context, m pubsub.Message) error {
		t, _ := FromHeader(m.Header)
		return h(NewContext(ctx, t), m)
	}
}
