package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/sdk/trace"
)

// visit asks for two quotes and scrapes the service, as Prometheus would.
func visit(ctx context.Context, out io.Writer, url string) error {
	for range 2 {
		if _, err := get(ctx, url+"/quotes/tea"); err != nil {
			return err
		}
	}
	page, err := get(ctx, url+"/metrics")
	if err != nil {
		return err
	}
	for line := range strings.Lines(scopes.ReplaceAllString(page, "")) {
		if strings.HasPrefix(line, "backstay_") && !strings.HasSuffix(line, " 0\n") {
			fmt.Fprint(out, line)
		}
	}
	return nil
}

// scopes is what the exporter says of instrumentation scopes, left out for brevity.
var scopes = regexp.MustCompile(`,otel_scope_[a-z_]+="[^"]*"`)

func get(ctx context.Context, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(body), err
}

// printer keeps spans as lines, where a service has an exporter in a batch.
type printer struct {
	mu  sync.Mutex
	out *bufio.Writer
}

func (p *printer) OnEnd(s trace.ReadOnlySpan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "span: %s %s %s\n", s.Name(), s.SpanKind(), s.Status().Code)
}

func (p *printer) OnStart(context.Context, trace.ReadWriteSpan) {}
func (p *printer) Shutdown(context.Context) error               { return nil }
func (p *printer) ForceFlush(context.Context) error             { return nil }
