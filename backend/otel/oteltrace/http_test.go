package oteltrace_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/retry"
)

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

func get(t *testing.T, ctx context.Context, rt http.RoundTripper, url string) (*http.Response, string) { //nolint:revive // t comes first in tests
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	client := &http.Client{Transport: rt}
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Empty(t, r.Header, "the request is not changed")
	return resp, string(body)
}

func TestATraceGoesOverHTTP(t *testing.T) {
	tr, provider, recorder := record(t)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, trace.SpanContextFromContext(r.Context()).TraceID().String())
	})
	server := httptest.NewServer(tr.Middleware(mux))
	defer server.Close()
	url := server.URL
	ctx, root := provider.Tracer("test").Start(t.Context(), "root")
	_, body := get(t, ctx, tr.Transport(nil), strings.Replace(url, "http://", "http://user:secret@", 1)+"/orders/7?token=secret")
	root.End()
	require.Equal(t, root.SpanContext().TraceID().String(), body)
	server.Close() // waits for the handler, and so for its span

	client := named(t, recorder, "GET")
	requireChild(t, client, named(t, recorder, "root"))
	require.Equal(t, trace.SpanKindClient, client.SpanKind())
	require.Equal(t, url+"/orders/7", attributes(client)["url.full"], "neither user nor query")
	require.Equal(t, "127.0.0.1", attributes(client)["server.address"])
	require.EqualValues(t, 200, attributes(client)["http.response.status_code"])
	require.NotContains(t, attributes(client), "http.request.resend_count")
	served := named(t, recorder, "GET /orders/{id}")
	requireChild(t, served, client)
	require.EqualValues(t, 200, attributes(served)["http.response.status_code"], "and not the 103 before it")
}

func TestTheServersSpanIsCalledByItsRoute(t *testing.T) {
	tr, _, recorder := record(t)
	mux := http.NewServeMux()
	mux.HandleFunc("GET example.com/orders/{id}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	mux.HandleFunc("/fails", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	for target, status := range map[string]int{"/orders/7": 418, "/fails": 502, "/nowhere": 404} {
		w := httptest.NewRecorder()
		tr.Middleware(mux).ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		require.Equal(t, status, w.Code)
	}
	order := named(t, recorder, "GET /orders/{id}")
	require.Equal(t, codes.Unset, order.Status().Code, "the client's fault")
	require.Equal(t, map[string]any{
		"http.request.method": "GET", "url.path": "/orders/7", "url.scheme": "http", "server.address": "example.com", "server.port": int64(80),
		"http.response.status_code": int64(418), "http.route": "/orders/{id}",
	}, attributes(order))
	fails := named(t, recorder, "GET /fails")
	require.Equal(t, codes.Error, fails.Status().Code)
	require.Equal(t, "502", attributes(fails)["error.type"])
	require.EqualValues(t, 404, attributes(named(t, recorder, "GET"))["http.response.status_code"])
}

func TestAStrangeMethodAndAPanic(t *testing.T) {
	tr, _, recorder := record(t)
	h := tr.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	require.PanicsWithValue(t, http.ErrAbortHandler, func() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(strings.Repeat("X", 500), "/", nil))
	})
	span := named(t, recorder, "HTTP")
	require.Equal(t, "_OTHER", attributes(span)["http.request.method"])
	require.Len(t, attributes(span)["http.request.method_original"], 64)
	require.Equal(t, "panic", attributes(span)["error.type"])
}

func TestEachAttemptHasASpan(t *testing.T) {
	tr, _, recorder := record(t)
	calls := 0
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls++; calls < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	retrier := retry.New(retry.Config{InitialInterval: time.Millisecond, MaxInterval: time.Millisecond})
	resp, _ := get(t, t.Context(), policyhttp.Transport(tr.Transport(nil), retrier), url)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	var counts []any
	for _, s := range recorder.Ended() {
		counts = append(counts, attributes(s)["http.request.resend_count"])
	}
	require.Equal(t, []any{nil, int64(1), int64(2)}, counts)
}

type broken struct{ err error }

func (b broken) RoundTrip(*http.Request) (*http.Response, error) { return nil, b.err }

func TestAFailedRequest(t *testing.T) {
	tr, _, recorder := record(t)
	cut := errors.New("cut")
	_, err := tr.Transport(broken{cut}).RoundTrip(httptest.NewRequest(http.MethodGet, "https://example.com/", nil)) //nolint:bodyclose // there is none
	require.Same(t, cut, err)
	require.Equal(t, codes.Error, named(t, recorder, "GET").Status().Code)
	require.EqualValues(t, 443, attributes(named(t, recorder, "GET"))["server.port"])
}
