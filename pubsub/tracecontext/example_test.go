package tracecontext_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
	"github.com/backstay-go/backstay/pubsub/tracecontext"
)

// The trace of a request goes from the context of the publisher to the context of the handler.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	defer bus.Close()
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders.placed", Group: "billing"})
	if err != nil {
		panic(err)
	}

	trace, _ := tracecontext.Parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "congo=t61rcWkgMzE")
	publisher := tracecontext.Publisher(bus)
	err = publisher.Publish(tracecontext.NewContext(ctx, trace), pubsub.Message{Topic: "orders.placed"})
	if err != nil {
		panic(err)
	}

	_ = c.Run(ctx, tracecontext.Handler(func(ctx context.Context, _ pubsub.Message) error {
		t, ok := tracecontext.FromContext(ctx)
		fmt.Println(ok, t.Traceparent(), t.State)
		stop()
		return nil
	}))
	// Output: true 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 congo=t61rcWkgMzE
}

// At the edge a trace comes in over HTTP.
func ExampleNewContext() {
	handle := func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if t, err := tracecontext.Parse(r.Header.Get("traceparent"), r.Header.Get("tracestate")); err == nil {
			ctx = tracecontext.NewContext(ctx, t)
		}
		t, _ := tracecontext.FromContext(ctx) // what tracecontext.Publisher would send
		fmt.Println(t.Traceparent(), "sampled:", t.Sampled())
		w.WriteHeader(http.StatusAccepted)
	}
	r := httptest.NewRequest(http.MethodPost, "/orders", nil)
	r.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
	handle(httptest.NewRecorder(), r)
	// Output: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00 sampled: false
}

// What is not valid is not believed.
func ExampleParse() {
	_, err := tracecontext.Parse("00-00000000000000000000000000000000-b7ad6b7169203331-01", "")
	fmt.Println(err)
	t, err := tracecontext.Parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Congo = no key")
	fmt.Printf("%s %q %v\n", t.Traceparent(), t.State, err)
	// Output:
	// tracecontext: traceparent: an ID is all zero
	// 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 "" <nil>
}
