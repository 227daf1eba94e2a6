// Telemetry puts a service's policies where Prometheus finds them, and its requests into traces.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/backend/otel/otelmetrics"
	"github.com/backstay-go/backstay/backend/otel/oteltrace"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/retry"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "where to serve")
	stay := flag.Bool("serve", false, "go on serving until interrupted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, *listen, *stay)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// telemetry is what a service sets up once.
type telemetry struct {
	meters   *metric.MeterProvider
	tracers  *trace.TracerProvider
	registry *prometheus.Registry
}

func setUp(spans trace.SpanProcessor) (telemetry, error) {
	registry := prometheus.NewRegistry()
	bridge, err := exporter.New(exporter.WithRegisterer(registry), exporter.WithoutScopeInfo())
	if err != nil {
		return telemetry{}, err
	}
	return telemetry{
		meters:   metric.NewMeterProvider(metric.WithReader(bridge)),
		tracers:  trace.NewTracerProvider(trace.WithSpanProcessor(spans)),
		registry: registry,
	}, nil
}

func (t telemetry) shutDown() error {
	return errors.Join(t.meters.Shutdown(context.Background()), t.tracers.Shutdown(context.Background()))
}

// quotes asks a bank that fails on every second question.
func quotes(t *oteltrace.Tracer, policies ...backstay.Policy) http.Handler {
	var asked atomic.Int64
	ask := oteltrace.Func(t, "ask the bank", func(context.Context, string) (string, error) {
		if asked.Add(1)%2 == 1 {
			return "", errors.New("the bank is busy")
		}
		return "£2.55", nil
	})
	quote := backstay.Wrap(ask, policies...)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /quotes/{item}", func(w http.ResponseWriter, r *http.Request) {
		answer, err := quote(r.Context(), r.PathValue("item"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, answer)
	})
	return t.Middleware(mux)
}

func run(ctx context.Context, out io.Writer, listen string, stay bool) (err error) {
	spans := &printer{out: bufio.NewWriter(out)}
	tel, err := setUp(spans)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tel.shutDown()) }()

	retrier := retry.New(retry.Config{Name: "bank", InitialInterval: time.Millisecond})
	guard := breaker.New(breaker.Config{Name: "bank"})
	exported := []otelmetrics.Object{retrier, guard}
	reg, err := otelmetrics.Register(tel.meters, otelmetrics.Config{}, exported...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	dashboard, err := otelmetrics.Dashboard("Quotes", exported...)
	if err != nil {
		return err
	}

	mux := http.NewServeMux()
	mux.Handle("/quotes/", quotes(oteltrace.New(tel.tracers), retrier, guard))
	mux.Handle("/metrics", promhttp.HandlerFor(tel.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/dashboard.json", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(dashboard) })
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	defer server.Close()
	go func() { _ = server.Serve(listener) }()

	url := "http://" + listener.Addr().String()
	err = visit(ctx, out, url)
	if err == nil && stay {
		fmt.Fprintf(out, "\nserving %s/metrics, %s/dashboard.json and %s/quotes/tea until interrupted\n", url, url, url)
		<-ctx.Done()
	}
	return errors.Join(err, server.Shutdown(context.WithoutCancel(ctx)), spans.out.Flush())
}
