package resilience

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/backstay-go/backstay/bench/cases"
)

// transport puts a library's HTTP retry round another transport.
type transport func(base http.RoundTripper) http.RoundTripper

// arrivals is a server that answers 503 to the first request of each path, and notes when requests came.
type arrivals struct {
	retryAfter func() string
	mu         sync.Mutex
	times      map[string][]time.Time
}

func (a *arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	a.mu.Lock()
	a.times[r.URL.Path] = append(a.times[r.URL.Path], time.Now())
	n := len(a.times[r.URL.Path])
	a.mu.Unlock()
	if n > 1 {
		_, _ = io.WriteString(w, "well again")
		return
	}
	if a.retryAfter != nil {
		w.Header().Set("Retry-After", a.retryAfter())
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, strings.Repeat("unavailable ", 300))
}

func (a *arrivals) of(path string) []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.times[path]
}

func call(client *http.Client, method, url string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader("body"))
	if err != nil {
		return 0, err
	}
	if method == http.MethodGet {
		req.Body, req.GetBody, req.ContentLength = nil, nil, 0
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

func retryAfterHonoured(create func(int, time.Duration) transport) error {
	date := func() string { return time.Now().Add(2 * time.Second).UTC().Format(http.TimeFormat) }
	for name, header := range map[string]func() string{"seconds": func() string { return "1" }, "date": date} {
		a := &arrivals{retryAfter: header, times: map[string][]time.Time{}}
		server := httptest.NewServer(a)
		client := &http.Client{Transport: create(3, time.Millisecond)(&http.Transport{})}
		status, err := call(client, http.MethodGet, server.URL+"/x")
		times := a.of("/x")
		server.Close()
		if err != nil || status != http.StatusOK || len(times) != 2 {
			return fmt.Errorf("Retry-After as %s: status %d after %d requests, error %w", name, status, len(times), err)
		}
		// A date has whole seconds: two seconds from now is more than one.
		if gap := times[1].Sub(times[0]); gap < 950*time.Millisecond {
			return fmt.Errorf("Retry-After as %s: repeated after %s", name, cases.Millis(gap))
		}
	}
	return nil
}

func discardedBodies(create func(int, time.Duration) transport) error {
	a := &arrivals{times: map[string][]time.Time{}}
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	opened := 0
	server := httptest.NewUnstartedServer(a)
	server.Config.ConnState = func(c net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		switch s {
		case http.StateNew:
			open[c] = true
			opened++
		case http.StateClosed, http.StateHijacked:
			delete(open, c)
		}
	}
	server.Start()
	client := &http.Client{Transport: create(3, time.Millisecond)(&http.Transport{})}
	for i := range 30 {
		if status, err := call(client, http.MethodGet, fmt.Sprintf("%s/%d", server.URL, i)); err != nil || status != http.StatusOK {
			return fmt.Errorf("GET: status %d, error %w", status, err)
		}
	}
	mu.Lock()
	left, all := len(open), opened
	mu.Unlock()
	if left > 2 {
		return fmt.Errorf("30 calls with one 503 each left %d open connections", left)
	}
	if all > 3 {
		return fmt.Errorf("30 calls with one 503 each opened %d connections", all)
	}
	_, _ = call(client, http.MethodPost, server.URL+"/post")
	if n := len(a.of("/post")); n != 1 {
		return fmt.Errorf("a POST was sent %d times", n)
	}
	return nil
}
