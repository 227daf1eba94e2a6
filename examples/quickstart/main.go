// Quickstart calls a flaky web server through a retrier, a breaker and a fallback, and tells what happens.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/fallback"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	var down atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "£2.55")
	}))
	defer server.Close()

	// readme: what the README shows first.
	total := timeout.New(timeout.Config{Name: "price", After: time.Second})
	retrier := retry.New(retry.Config{Name: "price", MaxAttempts: 3, InitialInterval: 10 * time.Millisecond})
	guard := breaker.New(breaker.Config{Name: "price", ConsecutiveFailures: 5, OpenDelay: 500 * time.Millisecond, Probes: 1})
	fb := fallback.New(fallback.Config{Name: "price"})

	price := fallback.Wrap(fb,
		backstay.Wrap(fetch, total, retrier, guard),
		func(ctx context.Context, url string, cause error) (string, error) { return "£2.50 (yesterday's)", nil },
	)

	answer, err := price(ctx, server.URL)
	// readme: end

	story := &story{out: out, retrier: retrier, guard: guard, fallback: fb}
	story.tell("all is well", answer, err)
	down.Store(true)
	for _, what := range []string{"the server fails", "it still fails", "nobody asks it now"} {
		answer, err = price(ctx, server.URL)
		story.tell(what, answer, err)
	}
	down.Store(false)
	select {
	case <-time.After(guard.Config().OpenDelay):
	case <-ctx.Done():
		return ctx.Err()
	}
	answer, err = price(ctx, server.URL)
	story.tell("a probe succeeds", answer, err)
	return story.verdict()
}

// fetch is the function that is made resilient. It knows nothing of policies.
func fetch(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the server answered %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	return string(body), err
}

// story prints a line for each call: what was answered, and what the policies did for it.
type story struct {
	out      io.Writer
	retrier  *retry.Retrier
	guard    *breaker.Breaker
	fallback *fallback.Fallback
	last     retry.Stats
	failed   error
}

func (s *story) tell(what, answer string, err error) {
	now := s.retrier.Stats()
	fmt.Fprintf(s.out, "%-20s %-22s retries %d   breaker %-9s   fallbacks %d\n",
		what, answer, now.Retries-s.last.Retries, s.guard.State(), s.fallback.Stats().Used)
	s.last = now
	s.failed = errors.Join(s.failed, err)
}

func (s *story) verdict() error {
	if s.failed != nil {
		return s.failed
	}
	b := s.guard.Stats()
	fmt.Fprintf(s.out, "\n5 calls, 5 answers; %d retries, the breaker opened %d time and spared the server %d calls.\n",
		s.last.Retries, b.Opened, b.Rejected)
	return nil
}
