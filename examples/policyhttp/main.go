// Policyhttp puts policies round an HTTP client and an HTTP server: the client repeats what may be repeated and stops calling a host that
// fails, the server turns away what is too much and says when to come back.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) error {
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	breakers := breaker.NewSet[string](breaker.SetConfig{Each: breaker.Config{ConsecutiveFailures: 6, OpenDelay: time.Minute}})
	client := &http.Client{Transport: policyhttp.Transport(base, // the first policy is the outermost
		timeout.New(timeout.Config{Name: "request", After: 10 * time.Second}),
		retry.New(retry.Config{Name: "request", MaxAttempts: 3, InitialInterval: 5 * time.Millisecond}),
		policyhttp.PerHost(breakers),
		bulkhead.New(bulkhead.Config{Name: "requests", MaxConcurrent: 16}),
	)}
	s := &story{out: out, client: client}
	return errors.Join(s.repeat(ctx), s.breakHost(ctx), s.limit(ctx))
}

// A story prints a line for each request and notes what is not as it should be.
type story struct {
	out    io.Writer
	client *http.Client
}

// serve starts a server that fails so many times before it answers, and counts how often it was asked.
func serve(failures int64) (server *httptest.Server, asked *atomic.Int64) {
	asked = new(atomic.Int64)
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) <= failures {
			http.Error(w, "try later", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "done")
	})), asked
}

// ask sends a request and tells what the caller gets; an answer of 503 is an answer, with its body.
func (s *story) ask(ctx context.Context, what, want, method, url, key string) error {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader("tea"))
	if err != nil {
		return err
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	resp, err := s.client.Do(r)
	got := "not sent"
	if err == nil {
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		got = strings.TrimSpace(fmt.Sprintf("%d %s", resp.StatusCode, body))
		if after := resp.Header.Get("Retry-After"); after != "" {
			got += ", come back in " + after + " s"
		}
	} else if !errors.Is(err, breaker.ErrOpen) {
		return err
	}
	fmt.Fprintf(s.out, "%-40s %s\n", what, got)
	if !strings.HasPrefix(got, want) {
		return fmt.Errorf("%s: %s, want %s", what, got, want)
	}
	return nil
}

// repeat shows what is sent again: what does no harm when it arrives twice.
func (s *story) repeat(ctx context.Context) (err error) {
	for _, c := range []struct{ what, want, method, key string }{
		{"GET, the server fails twice:", "200 done", http.MethodGet, ""},
		{"POST, the server fails twice:", "503 try later", http.MethodPost, ""},
		{"POST with a key, it fails twice:", "200 done", http.MethodPost, "order-1"},
	} {
		server, _ := serve(2)
		err = errors.Join(err, s.ask(ctx, c.what, c.want, c.method, server.URL, c.key))
		server.Close()
	}
	return err
}

// breakHost calls a host that is down until its breaker opens. Another host is not affected.
func (s *story) breakHost(ctx context.Context) error {
	broken, asked := serve(1000)
	defer broken.Close()
	healthy, _ := serve(0)
	defer healthy.Close()
	err := errors.Join(s.ask(ctx, "a host that is down:", "503 try later", http.MethodGet, broken.URL, ""),
		s.ask(ctx, "once more, and its breaker opens:", "503 try later", http.MethodGet, broken.URL, ""),
		s.ask(ctx, "once more:", "not sent", http.MethodGet, broken.URL, ""),
		s.ask(ctx, "another host meanwhile:", "200 done", http.MethodGet, healthy.URL, ""))
	if asked.Load() != 6 {
		err = errors.Join(err, fmt.Errorf("the host that is down was asked %d times, want 6", asked.Load()))
	}
	return err
}

// limit puts a rate limit before a handler. The request is a POST, which the client does not send again.
func (s *story) limit(ctx context.Context) error {
	limiter := ratelimit.New(ratelimit.Config{Name: "api", Rate: 0.1, Burst: 1})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "done") })
	server := httptest.NewServer(policyhttp.Handler(handler, limiter))
	defer server.Close()
	return errors.Join(s.ask(ctx, "a server with a rate limit:", "200 done", http.MethodPost, server.URL, ""),
		s.ask(ctx, "too soon after:", "429 Too Many Requests, come back in ", http.MethodPost, server.URL, ""))
}
