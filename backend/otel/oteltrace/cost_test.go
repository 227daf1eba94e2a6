package oteltrace_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/backstay-go/backstay/backend/otel/oteltrace"
)

// forget is an exporter that costs nothing.
type forget struct{}

func (forget) ExportSpans(context.Context, []sdk.ReadOnlySpan) error { return nil }
func (forget) Shutdown(context.Context) error                        { return nil }

// tracing are providers as services have them: spans go out in batches, of all requests or of few.
func tracing(tb testing.TB, sampler sdk.Sampler) *oteltrace.Tracer {
	provider := sdk.NewTracerProvider(sdk.WithSampler(sampler), sdk.WithBatcher(forget{}))
	tb.Cleanup(func() { require.NoError(tb, provider.Shutdown(context.Background())) })
	return oteltrace.New(provider)
}

// price is a service which answers at once.
func price() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /prices/{item}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "£2.55") })
	return mux
}

// remote is a call of a service over HTTP on this machine, the fastest remote call there is: with spans on both sides, or with none.
func remote(tb testing.TB, t *oteltrace.Tracer) (call func()) {
	h := price()
	transport := &http.Transport{}
	var rt http.RoundTripper = transport
	if t != nil {
		h, rt = t.Middleware(h), t.Transport(rt)
	}
	server := httptest.NewServer(h)
	tb.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
	})
	client := &http.Client{Transport: rt}
	return func() {
		resp, err := client.Get(server.URL + "/prices/tea")
		if err != nil {
			tb.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

// direct is a transport to a handler in the same process which costs next to nothing, so that what the spans cost shows.
type direct struct{ h http.Handler }

var answer = &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	d.h.ServeHTTP(nowhere{}, r)
	return answer, nil
}

type nowhere struct{}

func (nowhere) Header() http.Header         { return nil }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}
func (nowhere) Flush()                      {}

// local is that call without the network between the two sides.
func local(tb testing.TB, t *oteltrace.Tracer) (call func()) {
	var rt http.RoundTripper = direct{price()}
	if t != nil {
		rt = t.Transport(direct{t.Middleware(price())})
	}
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8080/prices/tea", nil)
	return func() {
		if resp, err := rt.RoundTrip(r); err != nil || resp != answer {
			tb.Fatal(resp, err)
		}
	}
}

// BenchmarkRemoteCall measures a remote call without spans, and with spans on both sides of which none or all are sampled. The network
// makes it uneven; BenchmarkBothSpans has what the spans add.
func BenchmarkRemoteCall(b *testing.B) { measure(b, remote) }

// BenchmarkBothSpans measures the same with no network, where the call alone costs next to nothing.
func BenchmarkBothSpans(b *testing.B) { measure(b, local) }

func measure(b *testing.B, prepare func(testing.TB, *oteltrace.Tracer) func()) {
	run := func(t *oteltrace.Tracer) func(b *testing.B) {
		return func(b *testing.B) {
			call := prepare(b, t)
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		}
	}
	b.Run("alone", run(nil))
	b.Run("none sampled", run(tracing(b, sdk.NeverSample())))
	b.Run("all sampled", run(tracing(b, sdk.AlwaysSample())))
}

// TestACallThatIsNotSampledDoesNotPayForAttributes: what a span would tell is put together for spans that are recorded.
func TestACallThatIsNotSampledDoesNotPayForAttributes(t *testing.T) {
	allocs := func(tracer *oteltrace.Tracer) float64 { return testing.AllocsPerRun(1000, local(t, tracer)) }
	alone := allocs(nil)
	require.LessOrEqual(t, allocs(tracing(t, sdk.NeverSample()))-alone, 22.0)
}
