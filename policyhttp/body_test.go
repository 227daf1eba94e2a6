package policyhttp_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// slowly sends 64 kB in pieces, each after a step. latest is the steps of the latest attempt: one before it may not have noticed
// yet that it was given up, and must not take them.
func slowly(status int) (handler http.HandlerFunc, latest func() chan<- struct{}) {
	var steps atomic.Pointer[chan struct{}]
	handler = func(w http.ResponseWriter, r *http.Request) {
		step := make(chan struct{}, 64)
		steps.Store(&step)
		w.WriteHeader(status)
		for range 64 {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1000))
			w.(http.Flusher).Flush()
			select {
			case <-step:
			case <-r.Context().Done():
				return
			}
		}
	}
	return handler, func() chan<- struct{} { return *steps.Load() }
}

// readSlowly reads what slowly sends, piece by piece.
func readSlowly(t *testing.T, resp *http.Response, step chan<- struct{}) {
	t.Helper()
	piece := make([]byte, 1000)
	for range 64 {
		_, err := io.ReadFull(resp.Body, piece)
		require.NoError(t, err)
		step <- struct{}{}
	}
	require.Empty(t, readAll(t, resp))
}

func TestASlowBodyIsReadWholeThroughEveryPolicy(t *testing.T) {
	minute := timeout.Config{After: time.Minute}
	policies := map[string][]backstay.Policy{
		"none":         nil,
		"retry":        {atOnce(2)},
		"breaker":      {breaker.New(breaker.Config{})},
		"bulkhead":     {bulkhead.New(bulkhead.Config{})},
		"timeout":      {timeout.New(minute)},
		"rate limit":   {ratelimit.New(ratelimit.Config{})},
		"foreign":      {hasty{}},
		"stubborn":     {stubborn(2)},
		"chain":        {backstay.Chain(timeout.New(minute), bulkhead.New(bulkhead.Config{}))},
		"two timeouts": {timeout.New(minute), atOnce(2), timeout.New(timeout.Config{After: time.Hour})},
		"per host":     {policyhttp.PerKey(lookup[*timeout.Timeout]{"": timeout.New(minute)}, func(*http.Request) string { return "" })},
		"all": {timeout.New(minute), atOnce(2), breaker.New(breaker.Config{}), ratelimit.New(ratelimit.Config{}),
			bulkhead.New(bulkhead.Config{}), timeout.New(minute)},
	}
	for name, policies := range policies {
		for _, status := range []int{200, 503} {
			t.Run(name+" "+http.StatusText(status), func(t *testing.T) {
				handler, latest := slowly(status)
				url, base, _ := serve(t, handler)
				resp, err := policyhttp.Transport(base, policies...).RoundTrip(request(t, "GET", url, nil))
				require.NoError(t, err)
				readSlowly(t, resp, latest())
			})
		}
	}
}

func TestAPermitIsHeldUntilTheBodyEndsOrIsClosed(t *testing.T) {
	h := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	base, _ := statuses(200)
	for _, rt := range []http.RoundTripper{
		policyhttp.Transport(base, h),
		policyhttp.Transport(base, atOnce(2), breaker.New(breaker.Config{}), h, timeout.New(timeout.Config{})),
		policyhttp.Transport(base, h, atOnce(2), hasty{}),
		policyhttp.Transport(policyhttp.Transport(base, h), atOnce(2)),
		policyhttp.Transport(base, together{atOnce(2), h}),
	} {
		resp, err := rt.RoundTrip(request(t, "GET", "http://bank/", nil))
		require.NoError(t, err)
		require.Equal(t, 1, h.Stats().Running, "at the headers")
		_, err = rt.RoundTrip(request(t, "GET", "http://bank/", nil))
		require.ErrorIs(t, err, bulkhead.ErrFull)
		_, err = io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Zero(t, h.Stats().Running, "at the end")
		require.NoError(t, resp.Body.Close())
		require.Zero(t, h.Stats().Running)

		resp, err = rt.RoundTrip(request(t, "GET", "http://bank/", nil))
		require.NoError(t, err)
		require.Equal(t, 1, h.Stats().Running)
		require.NoError(t, resp.Body.Close())
		require.Zero(t, h.Stats().Running, "closed")
	}
}

func TestASuccessThatComesTooLateHoldsItsPermit(t *testing.T) {
	h := bulkhead.New(bulkhead.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	base := fake(func(*http.Request) (*http.Response, error) {
		cancel()
		return answer(200, "x"), nil
	})
	resp, err := policyhttp.Transport(base, h).RoundTrip(request(t, "GET", "http://bank/", nil).WithContext(ctx))
	require.NoError(t, err)
	require.Equal(t, 1, h.Stats().Running)
	require.NoError(t, resp.Body.Close())
	require.Zero(t, h.Stats().Running)
}

func TestAPermitIsFreeAtOnceWithoutABody(t *testing.T) {
	url, base, _ := serve(t, func(http.ResponseWriter, *http.Request) {})
	h := bulkhead.New(bulkhead.Config{})
	resp, err := policyhttp.Transport(base, h, timeout.New(timeout.Config{})).RoundTrip(request(t, "HEAD", url, nil))
	require.NoError(t, err)
	require.Equal(t, http.NoBody, resp.Body)
	require.Zero(t, h.Stats().Running)
	require.NoError(t, resp.Body.Close())
}

func TestAPermitIsFreeAtOnceWhereTheBodyHasEndedAlready(t *testing.T) {
	inner, outer := bulkhead.New(bulkhead.Config{}), bulkhead.New(bulkhead.Config{})
	base, _ := statuses(200)
	through := policyhttp.Transport(base, inner)
	reader := fake(func(req *http.Request) (*http.Response, error) { // such as one that logs what it reads
		resp, err := through.RoundTrip(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		return resp, err
	})
	resp, err := policyhttp.Transport(reader, outer).RoundTrip(request(t, "GET", "http://bank/", nil))
	require.NoError(t, err)
	require.Zero(t, inner.Stats().Running)
	require.Zero(t, outer.Stats().Running)
	require.NoError(t, resp.Body.Close())
}

func TestAFailedResponseHoldsNoPermitDuringTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
		r := retry.New(retry.Config{}, retry.OnRetry(func(retry.Event) { require.Zero(t, h.Stats().Running) }))
		base, _ := statuses(503, 503, 200)
		resp, err := policyhttp.Transport(base, r, h).RoundTrip(request(t, "GET", "http://bank/", nil))
		require.NoError(t, err)
		require.Equal(t, "OK", readAll(t, resp))
		require.Equal(t, int64(2), r.Stats().Retries)
	})
}

func TestALongFailedResponseIsOutOfTheWayBeforeTheNextAttempt(t *testing.T) {
	attempts := 0
	url, base, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		attempts++
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write(make([]byte, 1_000_000))
	})
	h := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	resp, err := policyhttp.Transport(base, atOnce(3), h).RoundTrip(request(t, "GET", url, nil))
	require.NoError(t, err)
	require.Equal(t, 1, h.Stats().Running)
	require.Len(t, readAll(t, resp), 1_000_000, "the last one, whole")
	require.Zero(t, h.Stats().Running)
	require.Equal(t, 3, attempts)
}

func TestAFailedResponseThatNeverEndsDelaysTheRetryBriefly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		sent := 0
		base := fake(func(*http.Request) (*http.Response, error) {
			if sent++; sent == 1 {
				return &http.Response{StatusCode: 503, Body: reader}, nil
			}
			return answer(200, ""), nil
		})
		start := time.Now()
		resp, err := policyhttp.Transport(base, atOnce(2), bulkhead.New(bulkhead.Config{MaxConcurrent: 1})).RoundTrip(request(t, "GET", "http://bank/", nil))
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, 250*time.Millisecond, time.Since(start))
		_, err = writer.Write([]byte("x"))
		require.ErrorIs(t, err, io.ErrClosedPipe, "the discarded body is closed")
	})
}

func TestABodyThatEndsFromTwoSidesGivesItsPermitBackOnce(t *testing.T) {
	h := bulkhead.New(bulkhead.Config{MaxConcurrent: 2})
	other, err := h.Acquire(t.Context())
	require.NoError(t, err)
	defer other.Abort()
	base, _ := statuses(200)
	rt := policyhttp.Transport(base, h)
	for range 500 {
		resp, err := rt.RoundTrip(request(t, "GET", "http://bank/", nil))
		require.NoError(t, err)
		var sides sync.WaitGroup
		for range 2 {
			sides.Go(func() { _ = resp.Body.Close() })
		}
		sides.Wait()
		require.Equal(t, 1, h.Stats().Running)
	}
}

// TestAResponseThatALaterRejectionLeavesToTheCallerStaysOpen has one that must not be sent again, so that it was neither read ahead
// nor closed when the breaker opened.
func TestAResponseThatALaterRejectionLeavesToTheCallerStaysOpen(t *testing.T) {
	total, attempt, h := timeout.New(timeout.Config{}), timeout.New(timeout.Config{}), bulkhead.New(bulkhead.Config{})
	everything := retry.New(retry.Config{InitialInterval: -1}, retry.WithRetryable(func(error) bool { return true }))
	var inner context.Context
	base := fake(func(req *http.Request) (*http.Response, error) {
		inner = req.Context()
		return answer(503, "busy"), nil
	})
	rt := policyhttp.Transport(base, total, h, everything, breaker.New(breaker.Config{ConsecutiveFailures: 1}), attempt)
	resp, err := rt.RoundTrip(request(t, "POST", "http://bank/", nil))
	require.NoError(t, err)
	require.NoError(t, inner.Err())
	require.Equal(t, 1, h.Stats().Running)
	require.Equal(t, "busy", readAll(t, resp))
	require.Error(t, inner.Err())
	require.Zero(t, h.Stats().Running)
}

func TestOneResponseHoldsOnePermitHoweverOftenItIsAskedFor(t *testing.T) {
	h := bulkhead.New(bulkhead.Config{MaxConcurrent: 2})
	base, sent := statuses(503)
	resp, err := policyhttp.Transport(base, stubborn(4), h).RoundTrip(request(t, "POST", "http://bank/", nil))
	require.NoError(t, err)
	require.Equal(t, 1, *sent)
	require.Equal(t, 1, h.Stats().Running)
	require.NoError(t, resp.Body.Close())
	require.Zero(t, h.Stats().Running)
}

func TestAnUpgradedConnectionKeepsItsPermitAndBothDirections(t *testing.T) {
	url, base, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		_, _ = rw.WriteString(strings.ToUpper(line))
		_ = rw.Flush()
	})
	h := bulkhead.New(bulkhead.Config{})
	req := request(t, "GET", url, nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := policyhttp.Transport(base, h, timeout.New(timeout.Config{After: time.Minute})).RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	conn, ok := resp.Body.(io.ReadWriteCloser)
	require.True(t, ok)
	_, err = io.WriteString(conn, "ahoy\n")
	require.NoError(t, err)
	require.Equal(t, 1, h.Stats().Running)
	reply := make([]byte, 5)
	_, err = io.ReadFull(conn, reply)
	require.NoError(t, err)
	require.Equal(t, "AHOY\n", string(reply))
	require.NoError(t, conn.Close())
	require.Zero(t, h.Stats().Running)
}

func TestTrailersArrive(t *testing.T) {
	url, base, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Sum")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "body")
		w.Header().Set("Sum", "42")
	})
	resp, err := policyhttp.Transport(base, atOnce(2), bulkhead.New(bulkhead.Config{})).RoundTrip(request(t, "GET", url, nil))
	require.NoError(t, err)
	require.Equal(t, "body", readAll(t, resp))
	require.Equal(t, "42", resp.Trailer.Get("Sum"))
}
