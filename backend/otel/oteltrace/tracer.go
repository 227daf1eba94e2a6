package oteltrace

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Scope is the name of the instrumentation scope.
const Scope = "github.com/backstay-go/backstay/backend/otel/oteltrace"

// Tracer makes the spans. It is safe for concurrent use and holds nothing to be closed; the provider is the caller's to shut down.
// Its zero value is not usable; call New.
type Tracer struct {
	tracer trace.Tracer
	wire   propagation.TraceContext
}

// New returns a Tracer whose spans go to the provider. It panics on a nil provider.
func New(provider trace.TracerProvider) *Tracer {
	if provider == nil {
		panic("oteltrace: New(nil)")
	}
	return &Tracer{tracer: provider.Tracer(Scope, trace.WithSchemaURL(semconv.SchemaURL))}
}

// Func makes fn run in a span of this name, which should be one of few: no ids. It panics on a nil Tracer or fn.
func Func[In, Out any](t *Tracer, name string, fn func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	return wrap(t, fn, name, trace.SpanKindInternal)
}

// Database says what a function asks of a database. Empty fields are left out.
type Database struct {
	// System is the database by its name in the semantic conventions: "postgresql", "mysql", "sqlite", "redis".
	System string
	// Operation is what is done, such as "SELECT", Collection the table or such it is done to.
	Operation, Collection string
	// Namespace is the name of the database itself.
	Namespace string
}

// Query makes fn run in the span of a database client. It panics on a nil Tracer or fn.
func Query[In, Out any](t *Tracer, d Database, fn func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	var attrs []attribute.KeyValue
	name := ""
	for _, part := range []struct{ key, value string }{
		{string(semconv.DBOperationNameKey), d.Operation}, {string(semconv.DBCollectionNameKey), d.Collection},
		{string(semconv.DBNamespaceKey), d.Namespace}, {string(semconv.DBSystemNameKey), d.System},
	} {
		if part.value != "" {
			attrs = append(attrs, attribute.String(part.key, part.value))
		}
	}
	switch {
	case d.Operation != "" && d.Collection != "":
		name = d.Operation + " " + d.Collection
	case d.Operation != "" && d.Namespace != "":
		name = d.Operation + " " + d.Namespace
	case d.Operation != "":
		name = d.Operation
	default:
		name = d.System
	}
	return wrap(t, fn, name, trace.SpanKindClient, attrs...)
}

func wrap[In, Out any](
	t *Tracer, fn func(context.Context, In) (Out, error), name string, kind trace.SpanKind, attrs ...attribute.KeyValue,
) func(context.Context, In) (Out, error) {
	if t == nil || fn == nil {
		panic("oteltrace: the Tracer or the function is nil")
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithAttributes(attrs...)}
	return func(ctx context.Context, in In) (out Out, err error) {
		ctx, span := t.tracer.Start(ctx, name, options...)
		returned := false
		defer func() { end(span, err, returned) }()
		out, err = fn(ctx, in)
		returned = true
		return out, err
	}
}

// end ends the span of a function that returned err, or did not return. It is called by a deferred function and not deferred itself:
// so the span does not recover a panic, which would take its stack away.
func end(span trace.Span, err error, returned bool) {
	switch {
	case !returned:
		fail(span, semconv.ErrorTypeKey.String("panic"), "panicked")
	case err != nil:
		fail(span, semconv.ErrorType(err), err.Error())
	}
	span.End()
}

// maxText bounds what a span tells of an error.
const maxText = 1024

func fail(span trace.Span, kind attribute.KeyValue, text string) {
	if !span.IsRecording() {
		return
	}
	if len(text) > maxText {
		text = text[:maxText]
	}
	span.SetAttributes(kind)
	span.SetStatus(codes.Error, text)
}

// join begins a span that belongs to the trace that came along, with a link to the span at hand, or where none came is that one's
// child.
func (t *Tracer) join(ctx context.Context, came trace.SpanContext, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	if came.IsValid() {
		if here := trace.SpanContextFromContext(ctx); here.IsValid() && !here.Equal(came) {
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: here}))
		}
		ctx = trace.ContextWithRemoteSpanContext(ctx, came)
	}
	return t.tracer.Start(ctx, name, opts...)
}
