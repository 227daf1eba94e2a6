package oteltrace_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/backstay-go/backstay/backend/otel/oteltrace"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

type fakePublisher struct {
	got []pubsub.Message
	err error
}

func (f *fakePublisher) Publish(_ context.Context, msgs ...pubsub.Message) error {
	f.got = append(f.got, msgs...)
	return f.err
}

func TestATraceGoesThroughABroker(t *testing.T) {
	tr, provider, recorder := record(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "billing"})
	require.NoError(t, err)

	request, root := provider.Tracer("test").Start(ctx, "request")
	sent := pubsub.Message{ID: "m-1", Topic: "orders", Header: pubsub.Header{"a": "b"}, Payload: []byte("xyz")}
	require.NoError(t, tr.Publisher("mem", bus).Publish(request, sent))
	root.End()
	require.Equal(t, pubsub.Header{"a": "b"}, sent.Header, "the caller's header is not changed")

	require.NoError(t, c.Run(ctx, tr.Handler("mem", "billing", func(ctx context.Context, m pubsub.Message) error {
		stop()
		require.Equal(t, "b", m.Header["a"])
		require.True(t, trace.SpanContextFromContext(ctx).IsSampled())
		return nil
	})))
	require.NoError(t, bus.Close())

	send, process := named(t, recorder, "send orders"), named(t, recorder, "process orders")
	requireChild(t, send, named(t, recorder, "request"))
	requireChild(t, process, send)
	require.Equal(t, trace.SpanKindProducer, send.SpanKind())
	require.Equal(t, trace.SpanKindConsumer, process.SpanKind())
	require.Equal(t, map[string]any{
		"messaging.operation.type": "send", "messaging.operation.name": "send", "messaging.destination.name": "orders",
		"messaging.message.body.size": int64(3), "messaging.system": "mem", "messaging.message.id": "m-1",
	}, attributes(send))
	require.Equal(t, map[string]any{
		"messaging.operation.type": "process", "messaging.operation.name": "process", "messaging.destination.name": "orders",
		"messaging.message.body.size": int64(3), "messaging.system": "mem", "messaging.message.id": "m-1",
		"messaging.consumer.group.name": "billing", "backstay.attempt": int64(1),
	}, attributes(process))
}

func TestARelaySendsInTheTraceOfTheTransaction(t *testing.T) {
	tr, provider, recorder := record(t)
	var stored []pubsub.Message
	publish := oteltrace.Outbox(tr, func(_ context.Context, tx string, msgs ...pubsub.Message) error {
		require.Equal(t, "tx", tx)
		stored = append(stored, msgs...)
		return nil
	})
	request, root := provider.Tracer("test").Start(t.Context(), "request")
	require.NoError(t, publish(request, "tx", pubsub.Message{Topic: "a"}, pubsub.Message{Topic: "b", Header: pubsub.Header{"TraceParent": "junk"}}))
	root.End()

	round, relay := provider.Tracer("test").Start(t.Context(), "relay")
	broker := &fakePublisher{}
	require.NoError(t, tr.Publisher("kafka", broker).Publish(round, stored...))
	relay.End()
	for i, topic := range []string{"a", "b"} {
		create, send := named(t, recorder, "create "+topic), named(t, recorder, "send "+topic)
		requireChild(t, create, named(t, recorder, "request"))
		requireChild(t, send, create)
		require.Len(t, send.Links(), 1)
		require.Equal(t, relay.SpanContext().SpanID(), send.Links()[0].SpanContext.SpanID())
		require.Equal(t, stored[i].Header, broker.got[i].Header, "the message keeps the context of its creation")
		require.Len(t, broker.got[i].Header, 1, "what was not valid is gone")
	}
}

func TestEachMessageHasItsOwnFailure(t *testing.T) {
	tr, _, recorder := record(t)
	refused := errors.New("refused")
	broker := &fakePublisher{err: &pubsub.PublishError{Total: 2, Failed: []pubsub.Failure{{Index: 1, Err: refused}}}}
	err := tr.Publisher("", broker).Publish(t.Context(), pubsub.Message{Topic: "a"}, pubsub.Message{Topic: "b"})
	require.Same(t, broker.err, err, "the error goes through as it is")
	require.Equal(t, codes.Unset, named(t, recorder, "send a").Status().Code)
	require.Equal(t, codes.Error, named(t, recorder, "send b").Status().Code)
	require.Equal(t, "refused", named(t, recorder, "send b").Status().Description)

	broker.err = refused
	require.Same(t, refused, tr.Publisher("", broker).Publish(t.Context(), pubsub.Message{Topic: "c"}, pubsub.Message{Topic: "d"}))
	for _, name := range []string{"send c", "send d"} {
		require.Equal(t, codes.Error, named(t, recorder, name).Status().Code)
		require.Equal(t, "*errors.errorString", attributes(named(t, recorder, name))["error.type"])
	}
}

func TestAHandlerBelievesOnlyWhatIsValid(t *testing.T) {
	tr, _, recorder := record(t)
	boom := errors.New("boom")
	h := tr.Handler("mem", "", func(context.Context, pubsub.Message) error { return boom })
	require.Same(t, boom, h(t.Context(), pubsub.Message{Topic: "a", Header: pubsub.Header{"traceparent": "00-junk"}}))
	span := named(t, recorder, "process a")
	require.False(t, span.Parent().IsValid())
	require.Equal(t, codes.Error, span.Status().Code)
}

func TestWithoutAnSDKATracePassesThrough(t *testing.T) {
	tr := oteltrace.New(noop.NewTracerProvider())
	carried := oteltrace.Carried{Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Tracestate: "a=1"}
	broker := &fakePublisher{}
	require.NoError(t, tr.Publisher("", broker).Publish(carried.Context(t.Context()), pubsub.Message{Topic: "a"}))
	require.Equal(t, pubsub.Header{"traceparent": carried.Traceparent, "tracestate": "a=1"}, broker.got[0].Header)
	require.NoError(t, tr.Publisher("", broker).Publish(t.Context(), pubsub.Message{Topic: "a"}))
	require.Nil(t, broker.got[1].Header)
}
