package policyhttp_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/timeout"
)

// call serves one request without a network.
func call(t *testing.T, h http.Handler) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "http://shop/orders", nil))
	return w
}

func status(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints) // informational: the final status is still to come
		w.WriteHeader(code)
	})
}

// rejecting is a foreign policy that never lets anything through.
type rejecting struct{ error }

func (r rejecting) Do(context.Context, func(context.Context) error) error { return r.error }

type comeBack time.Duration

func (comeBack) Error() string               { return "later" }
func (c comeBack) RetryAfter() time.Duration { return time.Duration(c) }

func TestARefusedRequestIsAnsweredAndNeverReachesTheHandler(t *testing.T) {
	full := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	permit, err := full.Acquire(t.Context())
	require.NoError(t, err)
	defer permit.Abort()
	open := breaker.New(breaker.Config{ConsecutiveFailures: 1, OpenDelay: 90 * time.Minute})
	_ = open.Do(t.Context(), func(context.Context) error { return errRefused })
	limiter := ratelimit.New(ratelimit.Config{Rate: 0.1, Burst: 1})
	require.NoError(t, limiter.Allow())

	for name, c := range map[string]struct {
		policy     backstay.Policy
		status     int
		retryAfter string
	}{
		"bulkhead":      {full, 503, "1"},
		"breaker":       {open, 503, "5400"},
		"rate limit":    {limiter, 429, "10"},
		"per host":      {policyhttp.PerHost(lookup[*ratelimit.Limiter]{"shop": limiter}), 429, "10"},
		"chain":         {backstay.Chain(timeout.New(timeout.Config{}), limiter), 429, "10"},
		"foreign":       {rejecting{comeBack(1500 * time.Millisecond)}, 503, "2"},
		"foreign, huge": {rejecting{comeBack(1<<63 - 1)}, 503, "9223372037"},
	} {
		never := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error(name, ": the handler ran") })
		w := call(t, policyhttp.Handler(never, c.policy))
		require.Equal(t, c.status, w.Code, name)
		require.Equal(t, c.retryAfter, w.Header().Get("Retry-After"), name)
		require.Equal(t, http.StatusText(c.status)+"\n", w.Body.String())
	}
}

func TestTheHandlersOwnFailuresCount(t *testing.T) {
	for code, failures := range map[int]int64{200: 0, 404: 0, 429: 1, 500: 1, 503: 1} {
		b := breaker.New(breaker.Config{})
		call(t, policyhttp.Handler(status(code), b))
		require.Equal(t, failures, b.Stats().Failures, code)
		require.Equal(t, int64(1), b.Stats().Calls)
	}
}

func TestTheHandlerRunsOnce(t *testing.T) {
	ran := 0
	h := policyhttp.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { ran++; w.WriteHeader(500) }), stubborn(3))
	require.Equal(t, 500, call(t, h).Code)
	require.Equal(t, 1, ran)
}

func TestAHandlerWithoutAWordInTimeIsAnsweredFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{})
		obedient := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		w := call(t, policyhttp.Handler(obedient, to))
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Equal(t, int64(1), to.Stats().TimedOut)

		late := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); w.WriteHeader(202) })
		require.Equal(t, 202, call(t, policyhttp.Handler(late, to)).Code)
		silent := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
		require.Equal(t, 200, call(t, policyhttp.Handler(silent, to)).Code)
	})
}

func TestPanicsPassAndRelease(t *testing.T) {
	h, b := bulkhead.New(bulkhead.Config{}), breaker.New(breaker.Config{})
	panicking := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	require.PanicsWithError(t, http.ErrAbortHandler.Error(), func() { call(t, policyhttp.Handler(panicking, b, h)) })
	require.Zero(t, h.Stats().Running)
	require.Equal(t, int64(1), b.Stats().Failures)
}

// guarded serves handler behind policies of every kind.
func guarded(t *testing.T, handler http.HandlerFunc) (string, *http.Client) {
	t.Helper()
	h := policyhttp.Handler(handler, breaker.New(breaker.Config{}), ratelimit.New(ratelimit.Config{}),
		bulkhead.New(bulkhead.Config{}), timeout.New(timeout.Config{After: time.Minute}))
	url, base, _ := serve(t, h.ServeHTTP)
	return url, &http.Client{Transport: base, Timeout: patience}
}

func TestFlushingWorks(t *testing.T) {
	for name, flush := range map[string]func(http.ResponseWriter) error{
		"Flusher":            func(w http.ResponseWriter) error { w.(http.Flusher).Flush(); return nil },
		"ResponseController": func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan struct{})
			url, client := guarded(t, func(w http.ResponseWriter, r *http.Request) {
				if flush(w) != nil {
					return
				}
				select {
				case <-got: // the header has arrived while we are here
				case <-r.Context().Done():
				}
				_, _ = io.WriteString(w, "data")
			})
			resp, err := client.Get(url)
			require.NoError(t, err)
			close(got)
			require.Equal(t, "data", readAll(t, resp))
		})
	}
}

func TestHijackingWorks(t *testing.T) {
	for name, hijack := range map[string]func(http.ResponseWriter) (io.Closer, *bufio.ReadWriter, error){
		"Hijacker": func(w http.ResponseWriter) (io.Closer, *bufio.ReadWriter, error) { return w.(http.Hijacker).Hijack() },
		"ResponseController": func(w http.ResponseWriter) (io.Closer, *bufio.ReadWriter, error) {
			return http.NewResponseController(w).Hijack()
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, client := guarded(t, func(w http.ResponseWriter, _ *http.Request) {
				conn, rw, err := hijack(w)
				if err != nil {
					return
				}
				_, _ = rw.WriteString("HTTP/1.1 299 Mine\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
				_ = rw.Flush()
				_ = conn.Close()
			})
			resp, err := client.Get(url)
			require.NoError(t, err)
			require.Equal(t, 299, resp.StatusCode)
			require.Equal(t, "hi", readAll(t, resp))
		})
	}
}

func TestTrailersInformationAndCopiesWork(t *testing.T) {
	url, client := guarded(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "Sum")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.Copy(w, strings.NewReader("copied, "))
		_, _ = io.WriteString(w, "written")
		w.Header().Set("Sum", "42")
	})
	resp, err := client.Get(url)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, resp.StatusCode)
	require.Equal(t, "copied, written", readAll(t, resp))
	require.Equal(t, "42", resp.Trailer.Get("Sum"))
}

func TestTheResponseControllerReachesTheOriginal(t *testing.T) {
	url, client := guarded(t, func(w http.ResponseWriter, _ *http.Request) {
		c := http.NewResponseController(w)
		if c.SetReadDeadline(time.Now().Add(time.Minute)) == nil && c.SetWriteDeadline(time.Now().Add(time.Minute)) == nil && c.EnableFullDuplex() == nil {
			w.WriteHeader(http.StatusNoContent)
		}
	})
	resp, err := client.Get(url)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusNoContent, resp.StatusCode)
}

// pusher is a ResponseWriter as HTTP/2 has it, plain one without anything optional.
type pusher struct{ *httptest.ResponseRecorder }

func (pusher) Push(string, *http.PushOptions) error { return nil }

type plain struct{ http.ResponseWriter }

func TestTheWriterCanWhatTheOriginalCan(t *testing.T) {
	for _, c := range []struct {
		w                       http.ResponseWriter
		flushes, pushes, unable bool
	}{
		{httptest.NewRecorder(), true, false, false},
		{pusher{httptest.NewRecorder()}, true, true, false},
		{plain{httptest.NewRecorder()}, false, false, true},
	} {
		var got []bool
		policyhttp.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, flushes := w.(http.Flusher)
			_, pushes := w.(http.Pusher)
			_, hijacks := w.(http.Hijacker)
			got = []bool{flushes, pushes, hijacks, errors.Is(http.NewResponseController(w).Flush(), http.ErrNotSupported)}
		})).ServeHTTP(c.w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		require.Equal(t, []bool{c.flushes, c.pushes, false, c.unable}, got)
	}
}
