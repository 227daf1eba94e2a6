package oteltrace

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/tracecontext"
)

// AttemptKey is the attribute for the number of an attempt at a message or step, from 1.
const AttemptKey = attribute.Key("backstay.attempt")

// Publisher makes a Publisher that sends messages to p, each in a span and with its trace in the headers. The system is the broker
// by its name in the semantic conventions: "kafka", "rabbitmq", or such as "nats" and "redis". Given to an outbox's relay it goes on
// with the trace that Outbox put into the message. It panics on a nil p.
func (t *Tracer) Publisher(system string, p pubsub.Publisher) pubsub.Publisher {
	if p == nil {
		panic("oteltrace: Publisher(nil)")
	}
	return &publisher{t, system, p}
}

type publisher struct {
	t      *Tracer
	system string
	next   pubsub.Publisher
}

// Publish implements pubsub.Publisher.
func (p *publisher) Publish(ctx context.Context, msgs ...pubsub.Message) error {
	as := role{"send", semconv.MessagingOperationTypeSend, p.system}
	return p.t.sendAll(ctx, as, msgs, p.next.Publish)
}

// Outbox makes publish, the method Publish of an outbox, put the trace of the transaction into the messages: into each that of a span
// of its own, in which it was created. Only the messages of a transaction that is committed are ever sent. It panics on a nil Tracer
// or publish.
func Outbox[Tx any](
	t *Tracer, publish func(ctx context.Context, tx Tx, msgs ...pubsub.Message) error,
) func(ctx context.Context, tx Tx, msgs ...pubsub.Message) error {
	if t == nil || publish == nil {
		panic("oteltrace: the Tracer or the outbox's Publish is nil")
	}
	as := role{"create", semconv.MessagingOperationTypeCreate, ""}
	return func(ctx context.Context, tx Tx, msgs ...pubsub.Message) error {
		return t.sendAll(ctx, as, msgs, func(ctx context.Context, msgs ...pubsub.Message) error { return publish(ctx, tx, msgs...) })
	}
}

// role is what is done to messages.
type role struct {
	name   string
	kind   attribute.KeyValue
	system string // "" where it is not known
}

func (as role) attributes(m *pubsub.Message) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		as.kind, semconv.MessagingOperationName(as.name), semconv.MessagingDestinationName(m.Topic),
		semconv.MessagingMessageBodySize(len(m.Payload)),
	}
	if as.system != "" {
		attrs = append(attrs, semconv.MessagingSystemKey.String(as.system))
	}
	if m.ID != "" {
		attrs = append(attrs, semconv.MessagingMessageID(m.ID))
	}
	return attrs
}

func (t *Tracer) sendAll(ctx context.Context, as role, msgs []pubsub.Message, next func(context.Context, ...pubsub.Message) error) (err error) {
	out := slices.Clone(msgs)
	spans := make([]trace.Span, len(out))
	inside := ctx
	for i := range out {
		inside, spans[i] = t.send(ctx, as, &out[i])
	}
	if len(out) != 1 {
		inside = ctx
	}
	returned := false
	defer func() {
		for i, failed := range apart(err, len(spans)) {
			end(spans[i], failed, returned)
		}
	}()
	err = next(inside, out...)
	returned = true
	return err
}

// send begins the span of a message and puts its trace into the headers, unless there is one.
func (t *Tracer) send(ctx context.Context, as role, m *pubsub.Message) (context.Context, trace.Span) {
	came := spanContext(m.Header)
	ctx, span := t.join(ctx, came, as.name+" "+m.Topic, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(as.attributes(m)...))
	if came.IsValid() || !span.SpanContext().IsValid() {
		return ctx, span
	}
	header := make(pubsub.Header, len(m.Header)+2)
	maps.Copy(header, m.Header)
	maps.DeleteFunc(header, func(name, _ string) bool { // of no valid trace
		return strings.EqualFold(name, tracecontext.HeaderTraceparent) || strings.EqualFold(name, tracecontext.HeaderTracestate)
	})
	t.wire.Inject(ctx, propagation.MapCarrier(header))
	m.Header = header
	return ctx, span
}

// apart tells what became of each of n messages.
func apart(err error, n int) []error {
	errs := make([]error, n)
	var partial *pubsub.PublishError
	if !errors.As(err, &partial) {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	for _, f := range partial.Failed {
		if f.Index >= 0 && f.Index < n {
			errs[f.Index] = f.Err
		}
	}
	return errs
}

// spanContext is the trace that the headers of a message carry, or an invalid one.
func spanContext(h pubsub.Header) trace.SpanContext {
	came, ok := tracecontext.FromHeader(h)
	if !ok {
		return trace.SpanContext{}
	}
	carrier := propagation.MapCarrier{tracecontext.HeaderTraceparent: came.Traceparent(), tracecontext.HeaderTracestate: came.State}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
}

// Handler makes a Handler that calls h in a span, which is a child of the one that the message was sent in. The system is that of
// Publisher, and group the subscription's. It panics on a nil h.
func (t *Tracer) Handler(system, group string, h pubsub.Handler) pubsub.Handler {
	if h == nil {
		panic("oteltrace: Handler(nil)")
	}
	as := role{"process", semconv.MessagingOperationTypeProcess, system}
	return func(ctx context.Context, m pubsub.Message) (err error) {
		attrs := append(as.attributes(&m), AttemptKey.Int(m.Attempt))
		if group != "" {
			attrs = append(attrs, semconv.MessagingConsumerGroupName(group))
		}
		ctx, span := t.join(ctx, spanContext(m.Header), "process "+m.Topic,
			trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attrs...))
		returned := false
		defer func() { end(span, err, returned) }()
		err = h(ctx, m)
		returned = true
		return err
	}
}
