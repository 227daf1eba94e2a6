package oteltrace_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"syscall"
	"testing"
	"time"

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

// remote is a call of a service over HTTP on this machine, the fastest remote call there is, by a client and a server as they are
// given: with spans on both sides, or with none.
func remote(tb testing.TB, t *oteltrace.Tracer) (call func()) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /prices/{item}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "£2.55") })
	var h http.Handler = mux
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

// processorTime is what the process has used, which a busy machine does not lengthen as it does the time that passes.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ratio is how many times as much work with is as without: the median of rounds in which they take turns.
func ratio(rounds, calls int, without, with func()) float64 {
	took := func(fn func()) float64 {
		start := processorTime()
		for range calls {
			fn()
		}
		return float64(processorTime() - start)
	}
	took(without)
	took(with)
	all := make([]float64, rounds)
	for i := range all {
		if i%2 == 0 {
			first := took(without)
			all[i] = took(with) / first
		} else {
			first := took(with)
			all[i] = first / took(without)
		}
	}
	slices.Sort(all)
	return all[rounds/2]
}

// BenchmarkRemoteCall measures a remote call without spans, with spans of which none is sampled, and with all of them recorded.
// The metric is the ratio to a call without, measured by turns.
func BenchmarkRemoteCall(b *testing.B) {
	alone := remote(b, nil)
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			alone()
		}
	})
	for _, c := range []struct {
		name    string
		sampler sdk.Sampler
	}{{"not sampled", sdk.NeverSample()}, {"recorded", sdk.AlwaysSample()}} {
		b.Run(c.name, func(b *testing.B) {
			traced := remote(b, tracing(b, c.sampler))
			b.ReportAllocs()
			for b.Loop() {
				traced()
			}
			b.ReportMetric(ratio(41, 50, alone, traced), "×alone")
		})
	}
}
