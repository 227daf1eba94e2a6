package policyhttp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/timeout"
)

// http2Server starts a server that speaks HTTP/2 over TLS, and returns its address, a base transport and the number of
// connections made so far. Requests over anything else fail the test.
func http2Server(t *testing.T, handler http.Handler) (url string, base *http.Transport, connections *atomic.Int64) {
	t.Helper()
	server, connections := counted(t, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("the request came over %s", r.Proto)
		}
		handler.ServeHTTP(w, r)
	})
	server.EnableHTTP2 = true
	server.StartTLS()
	base = server.Client().Transport.(*http.Transport)
	base.ResponseHeaderTimeout = patience
	return server.URL, base, connections
}

// everyPolicy is a client's canonical order.
func everyPolicy(h *bulkhead.Bulkhead) []backstay.Policy {
	minute := timeout.New(timeout.Config{After: time.Minute})
	return []backstay.Policy{minute, atOnce(3), breaker.New(breaker.Config{}), ratelimit.New(ratelimit.Config{}), h, minute}
}

func TestHTTP2BodiesAreSentAgainWholeOverOneConnection(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 16<<10) // 256 KiB, more than the windows of a stream
	for name, body := range map[string]string{"empty": "", "short": "order 42", "long": long} {
		t.Run(name, func(t *testing.T) {
			handler, got := bodies(3)
			url, base, connections := http2Server(t, handler)
			h := bulkhead.New(bulkhead.Config{})
			resp, err := policyhttp.Transport(base, everyPolicy(h)...).RoundTrip(request(t, "PUT", url, strings.NewReader(body)))
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.Empty(t, readAll(t, resp))
			require.Equal(t, []string{body, body, body}, *got)
			require.Equal(t, int64(1), connections.Load())
			require.Zero(t, h.Stats().Running)
		})
	}
}

// TestHTTP2LongDiscardedResponsesLeaveTheConnection has failed responses that are too long to be read before they are given up.
func TestHTTP2LongDiscardedResponsesLeaveTheConnection(t *testing.T) {
	attempts := 0
	url, base, connections := http2Server(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if attempts++; attempts%2 == 1 {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write(make([]byte, 1<<20))
		}
	}))
	h := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	client := &http.Client{Transport: policyhttp.Transport(base, atOnce(2), h, timeout.New(timeout.Config{After: time.Minute}))}
	for range 20 {
		resp, err := client.Get(url)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Empty(t, readAll(t, resp))
		require.Zero(t, h.Stats().Running)
	}
	require.Equal(t, int64(1), connections.Load())
}

func TestHTTP2ASlowBodyIsReadWhole(t *testing.T) {
	for _, status := range []int{200, 503} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			handler, latest := slowly(status)
			url, base, _ := http2Server(t, handler)
			h := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
			minute := timeout.New(timeout.Config{After: time.Minute})
			resp, err := policyhttp.Transport(base, minute, breaker.New(breaker.Config{}), h, minute).RoundTrip(request(t, "GET", url, nil))
			require.NoError(t, err)
			require.Equal(t, status, resp.StatusCode)
			require.Equal(t, 1, h.Stats().Running)
			readSlowly(t, resp, latest())
			require.Zero(t, h.Stats().Running)
		})
	}
}

// TestHTTP2ATimeoutInTheBodyResetsTheStreamOnly sees from the server that the stream is gone, and from the number of connections
// that its neighbour and its successor use the same one.
func TestHTTP2ATimeoutInTheBodyResetsTheStreamOnly(t *testing.T) {
	reset, release := make(chan error, 100), make(chan struct{})
	url, base, connections := http2Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		end := release
		if r.URL.Path == "/hangs" {
			end = nil
		}
		select {
		case <-end:
			_, _ = io.WriteString(w, ", ended")
		case <-r.Context().Done():
			reset <- r.Context().Err()
		case <-time.After(patience):
		}
	}))
	h := bulkhead.New(bulkhead.Config{})
	patient := policyhttp.Transport(base, timeout.New(timeout.Config{After: time.Minute}), h)
	neighbour, err := patient.RoundTrip(request(t, "GET", url+"/neighbour", nil))
	require.NoError(t, err)

	attempt, resp := runsOutInTheBody(t, base, h, url+"/hangs")
	data, err := io.ReadAll(resp.Body)
	ranOut(t, err, "attempt")
	require.Equal(t, timeout.Stats{Calls: 1, TimedOut: 1}, attempt.Stats())
	require.Equal(t, "begun", string(data))
	require.Equal(t, 1, h.Stats().Running, "the neighbour's")
	require.ErrorIs(t, <-reset, context.Canceled)
	require.NoError(t, resp.Body.Close())

	close(release)
	require.Equal(t, "begun, ended", readAll(t, neighbour))
	next, err := patient.RoundTrip(request(t, "GET", url+"/next", nil))
	require.NoError(t, err)
	require.Equal(t, "begun, ended", readAll(t, next))
	require.Equal(t, int64(1), connections.Load())
	require.Zero(t, h.Stats().Running)
}

// runsOutInTheBody makes a request whose timeout leaves enough time for the header of the response, on however busy a machine.
func runsOutInTheBody(t *testing.T, base http.RoundTripper, h *bulkhead.Bulkhead, url string) (*timeout.Timeout, *http.Response) {
	t.Helper()
	for after := 250 * time.Millisecond; ; after *= 4 {
		attempt := timeout.New(timeout.Config{Name: "attempt", After: after})
		resp, err := policyhttp.Transport(base, atOnce(3), h, attempt).RoundTrip(request(t, "GET", url, nil))
		if err == nil {
			return attempt, resp
		}
		require.ErrorIs(t, err, timeout.ErrTimeout)
		require.Less(t, after, patience, "the header of the response does not come")
	}
}

func TestHTTP2TrailersGoBothWays(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Sum")
		data, _ := io.ReadAll(r.Body)
		_, _ = w.Write(data)
		w.Header().Set("Sum", "answer to "+r.Trailer.Get("Sum"))
		w.Header().Set(http.TrailerPrefix+"Late", "not announced")
	})
	guard := policyhttp.Handler(echo, breaker.New(breaker.Config{}), bulkhead.New(bulkhead.Config{}), timeout.New(timeout.Config{After: time.Minute}))
	url, base, _ := http2Server(t, guard)
	req := request(t, "PUT", url, io.NopCloser(strings.NewReader("body")))
	req.Trailer = http.Header{"Sum": {"42"}}
	resp, err := policyhttp.Transport(base, everyPolicy(bulkhead.New(bulkhead.Config{}))...).RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, "body", readAll(t, resp))
	require.Equal(t, "answer to 42", resp.Trailer.Get("Sum"))
	require.Equal(t, "not announced", resp.Trailer.Get("Late"))
}

// TestHTTP2TheHandlerShedsWhileStreamsAreUnderWay has both streams on one connection: shedding one must not disturb the other.
func TestHTTP2TheHandlerShedsWhileStreamsAreUnderWay(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	h := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	limiter := ratelimit.New(ratelimit.Config{Rate: 0.001, Burst: 2})
	url, base, connections := http2Server(t, policyhttp.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		select {
		case <-release:
			_, _ = io.WriteString(w, "served")
		case <-r.Context().Done():
		}
	}), limiter, h))
	served := make(chan error, 1)
	var first *http.Response
	req := request(t, "GET", url, nil)
	go func() {
		var err error
		first, err = base.RoundTrip(req)
		served <- err
	}()
	<-entered
	for _, want := range []struct {
		status, least, most int
	}{{503, 1, 1}, {429, 900, 1000}} {
		// The body is larger than what the server takes unread, so that it has to be given up.
		resp, err := base.RoundTrip(request(t, "POST", url, strings.NewReader(strings.Repeat("x", 1<<20))))
		require.NoError(t, err)
		require.Equal(t, want.status, resp.StatusCode)
		wait, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		require.NoError(t, err)
		require.GreaterOrEqual(t, wait, want.least)
		require.LessOrEqual(t, wait, want.most)
		require.Equal(t, http.StatusText(want.status)+"\n", readAll(t, resp))
	}
	close(release)
	require.NoError(t, <-served)
	require.Equal(t, "served", readAll(t, first))
	require.Equal(t, int64(1), connections.Load())
	require.Equal(t, int64(1), h.Stats().Rejected)
}

func TestHTTP2FlushingWorksInEveryForm(t *testing.T) {
	for name, flush := range map[string]func(http.ResponseWriter) error{
		"Flusher":            func(w http.ResponseWriter) error { w.(http.Flusher).Flush(); return nil },
		"ResponseController": func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan struct{}, 3)
			handler := policyhttp.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, pushes := w.(http.Pusher); !pushes {
					t.Error("the writer cannot push")
				}
				for i := range 3 {
					_, _ = fmt.Fprint(w, i)
					if flush(w) != nil {
						return
					}
					select {
					case <-got: // what was flushed has arrived while we are here
					case <-r.Context().Done():
						return
					}
				}
			}), bulkhead.New(bulkhead.Config{}), timeout.New(timeout.Config{After: time.Minute}))
			url, base, _ := http2Server(t, handler)
			resp, err := policyhttp.Transport(base, everyPolicy(bulkhead.New(bulkhead.Config{}))...).RoundTrip(request(t, "GET", url, nil))
			require.NoError(t, err)
			piece := make([]byte, 1)
			for i := range 3 {
				_, err := io.ReadFull(resp.Body, piece)
				require.NoError(t, err)
				require.Equal(t, fmt.Sprint(i), string(piece))
				got <- struct{}{}
			}
			require.Empty(t, readAll(t, resp))
		})
	}
}
