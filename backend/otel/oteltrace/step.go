package oteltrace

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay/pubsub/tracecontext"
	"github.com/backstay-go/backstay/saga"
)

// Attributes of the spans of sagas.
const (
	SagaKey      = attribute.Key("backstay.saga")           // the definition's name
	InstanceKey  = attribute.Key("backstay.saga.instance")  // the instance's ID
	StepKey      = attribute.Key("backstay.saga.step")      // the step's name; "group/branch" of a branch
	DirectionKey = attribute.Key("backstay.saga.direction") // "do" or "undo"
)

// Carried is a trace in a form to be stored: a field of a saga's State, or a column. It is plain data; its zero value is no trace.
type Carried struct {
	Traceparent string `json:"traceparent,omitempty"`
	Tracestate  string `json:"tracestate,omitempty"`
}

// Carry returns the trace of ctx, or the zero value if it has none.
func Carry(ctx context.Context) Carried {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return Carried{carrier[tracecontext.HeaderTraceparent], carrier[tracecontext.HeaderTracestate]}
}

// Context returns ctx with the trace, so that spans begun with it join that. Without a valid trace it returns ctx.
func (c Carried) Context(ctx context.Context) context.Context {
	if came := c.spanContext(); came.IsValid() {
		return trace.ContextWithRemoteSpanContext(ctx, came)
	}
	return ctx
}

func (c Carried) spanContext() trace.SpanContext {
	carrier := propagation.MapCarrier{tracecontext.HeaderTraceparent: c.Traceparent, tracecontext.HeaderTracestate: c.Tracestate}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
}

// Step makes Do, Undo and OnTimeout of a step run in spans, one for each attempt. Steps run on any node and long after the call that
// started the saga, so its trace travels in the State: trace returns the Carried that the caller put there by Carry, and may be nil
// for spans that each begin a trace. It must not have effects. The branches of a parallel group are wrapped by Branch; the waiting of
// Await, SleepUntil and Child has no spans. It panics on a nil Tracer.
//
//	saga.Define("order", 1,
//		oteltrace.Step(t, func(s *order) oteltrace.Carried { return s.Trace }, saga.Step[order]{Name: "pay", …}))
func Step[State any](t *Tracer, trace func(s *State) Carried, step saga.Step[State]) saga.Step[State] {
	if t == nil {
		panic("oteltrace: the Tracer is nil")
	}
	around := func(direction saga.Direction, fn func(context.Context, *State) error) func(context.Context, *State) error {
		if fn == nil {
			return nil
		}
		return func(ctx context.Context, s *State) error {
			var carried Carried
			if trace != nil {
				carried = trace(s)
			}
			return t.step(ctx, carried, step.Name, direction, func(ctx context.Context) error { return fn(ctx, s) })
		}
	}
	step.Do = around(saga.Forward, step.Do)
	step.Undo = around(saga.Backward, step.Undo)
	step.OnTimeout = around(saga.Forward, step.OnTimeout)
	return step
}

// Branch is Step for a branch of a parallel group: it makes Do and Undo run in spans, one for each attempt, which are called
// "group/branch". It panics on a nil Tracer.
//
//	saga.Parallel("book", oteltrace.Branch(t, carried, saga.Branch[trip, string]{Name: "flight", …}), …)
func Branch[State, R any](t *Tracer, trace func(s *State) Carried, branch saga.Branch[State, R]) saga.Branch[State, R] {
	if t == nil {
		panic("oteltrace: the Tracer is nil")
	}
	carried := func(s *State) Carried {
		if trace == nil {
			return Carried{}
		}
		return trace(s)
	}
	if do := branch.Do; do != nil {
		branch.Do = func(ctx context.Context, s State) (r R, err error) {
			err = t.step(ctx, carried(&s), branch.Name, saga.Forward, func(ctx context.Context) (err error) {
				r, err = do(ctx, s)
				return err
			})
			return r, err
		}
	}
	if undo := branch.Undo; undo != nil {
		branch.Undo = func(ctx context.Context, s State, r R) error {
			return t.step(ctx, carried(&s), branch.Name, saga.Backward, func(ctx context.Context) error { return undo(ctx, s, r) })
		}
	}
	return branch
}

// step runs fn in the span of an attempt. The name is that of a step outside of a saga; within, the attempt knows its own.
func (t *Tracer) step(ctx context.Context, carried Carried, step string, direction saga.Direction, fn func(context.Context) error) (err error) {
	attrs := make([]attribute.KeyValue, 0, 5)
	name := step + " " + string(direction)
	if now, ok := saga.Current(ctx); ok {
		step = now.Step
		attrs = append(attrs, SagaKey.String(now.Definition), InstanceKey.String(now.ID), AttemptKey.Int(now.Number))
		name = now.Definition + " " + step + " " + string(direction)
	}
	attrs = append(attrs, StepKey.String(step), DirectionKey.String(string(direction)))
	ctx, span := t.join(ctx, carried.spanContext(), name, trace.WithAttributes(attrs...))
	returned := false
	defer func() { end(span, err, returned) }()
	err = fn(ctx)
	returned = true
	return err
}
