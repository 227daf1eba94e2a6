package oteltrace

import (
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/backstay-go/backstay/pubsub/tracecontext"
	"github.com/backstay-go/backstay/retry"
)

// Transport makes a RoundTripper that sends each request in a span and with its trace in the headers. The span ends when next
// returns: with the header of the response, and before its body. A nil next means http.DefaultTransport.
func (t *Tracer) Transport(next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return &transport{t, next}
}

type transport struct {
	t    *Tracer
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (c *transport) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	name, as := method(r.Method)
	ctx, span := c.t.tracer.Start(r.Context(), name, asClient, trace.WithAttributes(as, semconv.ServerAddress(r.URL.Hostname())))
	if span.IsRecording() {
		span.SetAttributes(sending(r)...)
	}
	returned := false
	defer func() { end(span, err, returned) }()
	sent := r.WithContext(ctx)
	// The values stay those of r: Set replaces them whole.
	if sent.Header = maps.Clone(r.Header); sent.Header == nil {
		sent.Header = http.Header{}
	}
	c.t.wire.Inject(ctx, headers(sent.Header))
	resp, err = c.next.RoundTrip(sent)
	if err == nil {
		answered(span, resp.StatusCode, http.StatusBadRequest)
	}
	returned = true
	return resp, err
}

// sending is what else a recorded span tells of a request as the client sees it.
func sending(r *http.Request) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, usual), semconv.URLFull(public(r.URL)))
	if port := portOf(r.URL.Scheme, r.URL.Port()); port > 0 {
		attrs = append(attrs, semconv.ServerPort(port))
	}
	if n := retry.Attempt(r.Context()); n > 1 {
		attrs = append(attrs, semconv.HTTPRequestResendCount(n-1))
	}
	return original(attrs, r.Method)
}

// CloseIdleConnections hands the call of http.Client on.
func (c *transport) CloseIdleConnections() {
	if next, ok := c.next.(interface{ CloseIdleConnections() }); ok {
		next.CloseIdleConnections()
	}
}

// Middleware makes a Handler that serves each request in a span, which is a child of the client's. The span is called by the pattern
// of the http.ServeMux inside, if there is one. It panics on a nil next.
func (t *Tracer) Middleware(next http.Handler) http.Handler {
	if next == nil {
		panic("oteltrace: Middleware(nil)")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := t.wire.Extract(r.Context(), headers(r.Header))
		name, as := method(r.Method)
		ctx, span := t.tracer.Start(ctx, name, asServer, trace.WithAttributes(as, semconv.URLPath(r.URL.Path)))
		if span.IsRecording() {
			span.SetAttributes(serving(r)...)
		}
		noted := &writer{ResponseWriter: w}
		r = r.WithContext(ctx)
		returned := false
		defer func() {
			if r.Pattern != "" && span.IsRecording() {
				route := routeOf(r.Pattern)
				span.SetName(spanName(name, r.Pattern, route))
				span.SetAttributes(semconv.HTTPRoute(route))
			}
			if returned {
				answered(span, noted.final(), http.StatusInternalServerError)
			}
			end(span, nil, returned)
		}()
		next.ServeHTTP(noted.view(), r)
		returned = true
	})
}

// serving is what else a recorded span tells of a request as the server sees it.
func serving(r *http.Request) []attribute.KeyValue {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	attrs := append(make([]attribute.KeyValue, 0, usual), semconv.URLScheme(scheme))
	if host != "" {
		attrs = append(attrs, semconv.ServerAddress(host))
	}
	if n := portOf(scheme, port); n > 0 {
		attrs = append(attrs, semconv.ServerPort(n))
	}
	return original(attrs, r.Method)
}

// routeOf is the path of a pattern, which may begin with a method and a host.
func routeOf(pattern string) string {
	for i, c := range pattern {
		if c == '/' {
			return pattern[i:]
		}
	}
	return pattern
}

// spanName is method and route. Most patterns say just that.
func spanName(method, pattern, route string) string {
	if len(pattern) == len(method)+1+len(route) && strings.HasPrefix(pattern, method) {
		return pattern
	}
	return method + " " + route
}

func answered(span trace.Span, status, failures int) {
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(semconv.HTTPResponseStatusCode(status))
	if status >= failures {
		fail(span, semconv.ErrorTypeKey.String(strconv.Itoa(status)), "")
	}
}

var methods = map[string]bool{
	http.MethodConnect: true, http.MethodDelete: true, http.MethodGet: true, http.MethodHead: true, http.MethodOptions: true,
	http.MethodPatch: true, http.MethodPost: true, http.MethodPut: true, http.MethodTrace: true,
}

// The kinds of spans as options, made once.
var (
	asClient = trace.WithSpanKind(trace.SpanKindClient)
	asServer = trace.WithSpanKind(trace.SpanKindServer)
)

// headers carries a trace in those of HTTP, without making the canonical form of a name anew for each request.
type headers http.Header

// Get implements propagation.TextMapCarrier.
func (h headers) Get(key string) string {
	if values := h[canonical(key)]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set implements propagation.TextMapCarrier.
func (h headers) Set(key, value string) { h[canonical(key)] = []string{value} }

// Keys implements propagation.TextMapCarrier.
func (h headers) Keys() []string { return slices.Collect(maps.Keys(h)) }

func canonical(key string) string {
	switch key {
	case tracecontext.HeaderTraceparent:
		return "Traceparent"
	case tracecontext.HeaderTracestate:
		return "Tracestate"
	default:
		return http.CanonicalHeaderKey(key)
	}
}

// method gives the name of the span, and the attribute: there are few, whatever clients send.
func method(m string) (name string, attr attribute.KeyValue) {
	switch {
	case m == "":
		return http.MethodGet, semconv.HTTPRequestMethodGet
	case methods[m]:
		return m, semconv.HTTPRequestMethodKey.String(m)
	default:
		return "HTTP", semconv.HTTPRequestMethodOther
	}
}

// original adds a method that method has hidden.
func original(attrs []attribute.KeyValue, m string) []attribute.KeyValue {
	if m == "" || methods[m] {
		return attrs
	}
	return append(attrs, semconv.HTTPRequestMethodOriginal(m[:min(len(m), maxMethod)]))
}

const maxMethod = 64

// usual is how many attributes are added to most spans of HTTP that are recorded.
const usual = 4

// public is a URL without what may be secret.
func public(u *url.URL) string {
	shown := *u
	shown.User, shown.RawQuery, shown.ForceQuery, shown.Fragment, shown.RawFragment = nil, "", false, "", ""
	return shown.String()
}

func portOf(scheme, port string) int {
	n, err := strconv.Atoi(port)
	switch {
	case err == nil:
		return n
	case scheme == "https":
		return 443
	case scheme == "http":
		return 80
	default:
		return 0
	}
}
