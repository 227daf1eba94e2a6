package backstay_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/retry"
)

// onceUnavailable answers 503 to the first request of each path, with a body that has to be read for the connection to be used again.
type onceUnavailable struct {
	retryAfter string
	mu         sync.Mutex
	times      map[string][]time.Time
}

func (h *onceUnavailable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	h.mu.Lock()
	h.times[r.URL.Path] = append(h.times[r.URL.Path], time.Now())
	first := len(h.times[r.URL.Path]) == 1
	h.mu.Unlock()
	if !first {
		_, _ = io.WriteString(w, "well again")
		return
	}
	if h.retryAfter != "" {
		w.Header().Set("Retry-After", h.retryAfter)
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, strings.Repeat("unavailable ", 300))
}

// RoundTrip serves without a network, so that the time of a bubble counts.
func (h *onceUnavailable) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

func get(t *testing.T, client *http.Client, method, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	resp, err := client.Do(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, string(body)
}

func TestT17_RetryAfterIsHonouredInSecondsAndAsADate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, header := range map[string]string{
			"seconds": "20",
			"date":    time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat),
		} {
			server := &onceUnavailable{retryAfter: header, times: map[string][]time.Time{}}
			client := &http.Client{Transport: policyhttp.Transport(server, retry.New(retry.Config{InitialInterval: time.Millisecond}))}
			start := time.Now()
			status, body := get(t, client, http.MethodGet, "http://example.test/x")
			require.Equal(t, http.StatusOK, status, name)
			require.Equal(t, "well again", body)
			if name == "seconds" {
				require.Equal(t, 20*time.Second, time.Since(start))
			} else {
				require.LessOrEqual(t, time.Since(start), 20*time.Second)
			}
			require.Len(t, server.times["/x"], 2)
		}
	})
}

func TestT17_ARetryAfterPastTheDeadlineGivesTheAnswerAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &onceUnavailable{retryAfter: "20", times: map[string][]time.Time{}}
		transport := policyhttp.Transport(server, retry.New(retry.Config{}))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://example.test/x", nil)
		require.NoError(t, err)
		start := time.Now()
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		require.Zero(t, time.Since(start))
	})
}

func TestT18_DiscardedBodiesAreClosedAndAPostIsNotRepeated(t *testing.T) {
	handler := &onceUnavailable{times: map[string][]time.Time{}}
	server := httptest.NewUnstartedServer(handler)
	var mu sync.Mutex
	opened := 0
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if s == http.StateNew {
			opened++
		}
	}
	server.Start()
	defer server.Close()
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: policyhttp.Transport(base, retry.New(retry.Config{InitialInterval: -1}))}
	for i := range 30 {
		status, _ := get(t, client, http.MethodGet, server.URL+"/"+strconv.Itoa(i))
		require.Equal(t, http.StatusOK, status)
	}
	status, body := get(t, client, http.MethodPost, server.URL+"/payment")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, body, "unavailable", "the caller gets the answer itself")
	require.Len(t, handler.times["/payment"], 1)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, 1, opened, "61 requests go through one connection")
}

// tracked counts the bodies that it hands out and that are closed.
type tracked struct {
	size           int
	opened, closed int
}

func (tr *tracked) RoundTrip(r *http.Request) (*http.Response, error) {
	status := http.StatusServiceUnavailable
	if tr.opened++; tr.opened%3 == 0 {
		status = http.StatusOK
	}
	body := &trackedBody{Reader: strings.NewReader(strings.Repeat("x", tr.size)), of: tr}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: body, Request: r}, nil
}

type trackedBody struct {
	io.Reader
	of     *tracked
	closed bool
}

func (b *trackedBody) Close() error {
	if !b.closed {
		b.closed = true
		b.of.closed++
	}
	return nil
}

func TestT18_EveryDiscardedBodyIsClosedHoweverLong(t *testing.T) {
	for _, size := range []int{0, 100, 1 << 20} {
		base := &tracked{size: size}
		client := &http.Client{Transport: policyhttp.Transport(base, retry.New(retry.Config{InitialInterval: -1}))}
		status, body := get(t, client, http.MethodGet, "http://example.test/x")
		require.Equal(t, http.StatusOK, status)
		require.Len(t, body, size)
		require.Equal(t, 3, base.opened)
		require.Equal(t, 3, base.closed, "bodies of %d bytes", size)
	}
}
