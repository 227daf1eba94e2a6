package oteltrace_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/backstay-go/backstay/backend/otel/oteltrace"
	"github.com/backstay-go/backstay/pubsub"
)

// show prints the spans that have ended, as an exporter would send them.
func show(spans *tracetest.SpanRecorder) {
	for _, s := range spans.Ended() {
		fmt.Println(s.Name(), s.SpanKind(), "child:", s.Parent().IsValid())
	}
}

func Example() {
	spans := tracetest.NewSpanRecorder() // a service has an exporter here
	t := oteltrace.New(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))

	load := oteltrace.Query(t, oteltrace.Database{System: "postgresql", Operation: "SELECT", Collection: "prices"},
		func(context.Context, string) (int, error) { return 42, nil })
	quote := oteltrace.Func(t, "quote", func(ctx context.Context, sku string) (int, error) { return load(ctx, sku) })
	fmt.Println(quote(context.Background(), "tea"))
	show(spans)
	// Output:
	// 42 <nil>
	// SELECT prices client child: true
	// quote internal child: false
}

// The server's span is a child of the client's, and called by its route.
func ExampleTracer_Middleware() {
	spans := tracetest.NewSpanRecorder()
	t := oteltrace.New(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders/{id}", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(t.Middleware(mux))
	client := &http.Client{Transport: t.Transport(nil)}
	resp, err := client.Get(server.URL + "/orders/7")
	if err != nil {
		panic(err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	server.Close() // waits for the handler
	for _, s := range spans.Ended() {
		if s.Name() != "GET" {
			fmt.Println(s.Name(), s.SpanKind(), "child:", s.Parent().IsRemote())
		}
	}
	// Output: GET /orders/{id} server child: true
}

// A message carries the trace of its publisher to the handler.
func ExampleTracer_Handler() {
	spans := tracetest.NewSpanRecorder()
	t := oteltrace.New(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))
	handle := t.Handler("nats", "billing", func(context.Context, pubsub.Message) error { return nil })
	err := handle(context.Background(), pubsub.Message{
		Topic:  "orders.placed",
		Header: pubsub.Header{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	})
	fmt.Println(err, spans.Ended()[0].SpanContext().TraceID())
	show(spans)
	// Output:
	// <nil> 0af7651916cd43dd8448eb211c80319c
	// process orders.placed consumer child: true
}

// What an outbox stores carries the trace of the transaction.
func ExampleOutbox() {
	t := oteltrace.New(sdk.NewTracerProvider())
	store := func(_ context.Context, _ int, msgs ...pubsub.Message) error { // the method Publish of an outbox
		fmt.Println(len(msgs[0].Header["traceparent"]))
		return nil
	}
	fmt.Println(oteltrace.Outbox(t, store)(context.Background(), 1, pubsub.Message{Topic: "orders.placed"}))
	// Output:
	// 55
	// <nil>
}
