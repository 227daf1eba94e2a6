package policyhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

func TestTheCallerGetsTheFailedResponseInTheEnd(t *testing.T) {
	for _, status := range []int{429, 500, 502, 503, 504, 599} {
		sent := 0
		base := fake(func(*http.Request) (*http.Response, error) {
			sent++
			return answer(status, fmt.Sprint("attempt ", sent)), nil
		})
		b := breaker.New(breaker.Config{})
		resp, err := policyhttp.Transport(base, atOnce(3), b).RoundTrip(request(t, "GET", "http://bank/", nil))
		require.NoError(t, err)
		require.Equal(t, status, resp.StatusCode)
		require.Equal(t, "attempt 3", readAll(t, resp))
		require.Equal(t, int64(3), b.Stats().Failures)
	}
}

func TestOtherStatusesAreNotFailures(t *testing.T) {
	for _, status := range []int{200, 204, 302, 400, 404, 499} {
		base, sent := statuses(status)
		b := breaker.New(breaker.Config{})
		resp, err := policyhttp.Transport(base, atOnce(3), b).RoundTrip(request(t, "GET", "http://bank/", nil))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 1, *sent)
		require.Equal(t, int64(1), b.Stats().Successes)
	}
}

func TestDiscardedResponsesLeaveTheirConnectionForTheNext(t *testing.T) {
	for name, size := range map[string]int{"empty": 0, "short": 100, "64 KiB": 64<<10 - 1} {
		t.Run(name, func(t *testing.T) {
			failed := map[string]bool{}
			url, base, connections := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if !failed[r.URL.Path] {
					failed[r.URL.Path] = true
					w.WriteHeader(http.StatusServiceUnavailable)
					_, _ = io.WriteString(w, strings.Repeat("x", size))
				}
			})
			client := &http.Client{Transport: policyhttp.Transport(base, atOnce(2))}
			for i := range 30 {
				resp, err := client.Get(fmt.Sprintf("%s/%d", url, i))
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, resp.StatusCode)
				require.Empty(t, readAll(t, resp))
			}
			require.Len(t, failed, 30)
			require.Equal(t, int64(1), connections.Load())
		})
	}
}

func TestOnlyWhatMayBeRepeatedIsSentAgain(t *testing.T) {
	everything := retry.New(retry.Config{InitialInterval: -1}, retry.WithRetryable(func(error) bool { return true }))
	for _, c := range []struct {
		method, key string
		want        int
	}{
		{"GET", "", 3}, {"HEAD", "", 3}, {"OPTIONS", "", 3}, {"TRACE", "", 3}, {"PUT", "", 3}, {"DELETE", "", 3}, {"", "", 3},
		{"POST", "", 1}, {"PATCH", "", 1}, {"CONNECT", "", 1}, {"get", "", 1},
		{"POST", "Idempotency-Key", 3}, {"PATCH", "X-Idempotency-Key", 3},
	} {
		for _, policy := range []backstay.Policy{atOnce(3), everything, stubborn(3), together{atOnce(3)}} {
			for _, cause := range []error{nil, errRefused} {
				sent := 0
				base := fake(func(*http.Request) (*http.Response, error) {
					if sent++; cause != nil {
						return nil, cause
					}
					return answer(503, "busy"), nil
				})
				req := request(t, "GET", "http://bank/", nil)
				if req.Method = c.method; c.key != "" {
					req.Header.Set(c.key, "42")
				}
				resp, err := policyhttp.Transport(base, policy).RoundTrip(req)
				require.Equal(t, c.want, sent, "%s %s %T", c.method, c.key, policy)
				require.ErrorIs(t, err, cause)
				if cause == nil {
					require.Equal(t, "busy", readAll(t, resp))
				}
			}
		}
	}
}

func TestAnErrorThatIsNotRepeatedIsPassedOnAsItIs(t *testing.T) {
	base := fake(func(*http.Request) (*http.Response, error) { return nil, errRefused })
	_, err := policyhttp.Transport(base, atOnce(3)).RoundTrip(request(t, "POST", "http://bank/", strings.NewReader("x")))
	require.Equal(t, errRefused, err)
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for name, header := range map[string][]string{
		"seconds":                 {"Retry-After", "7"},
		"date":                    {"Retry-After", "Fri, 20 Nov 2026 12:00:07 GMT", "Date", "Fri, 20 Nov 2026 12:00:00 GMT"},
		"date, without our clock": {"Retry-After", "Sat, 01 Jan 2000 00:00:07 GMT"}, // the bubble's clock starts at midnight
	} {
		synctest.Test(t, func(t *testing.T) {
			var times []time.Duration
			start := time.Now()
			base := fake(func(*http.Request) (*http.Response, error) {
				if times = append(times, time.Since(start)); len(times) == 1 {
					return answer(429, "", header...), nil
				}
				return answer(200, ""), nil
			})
			_, err := policyhttp.Transport(base, atOnce(2)).RoundTrip(request(t, "GET", "http://bank/", nil))
			require.NoError(t, err)
			require.Equal(t, []time.Duration{0, 7 * time.Second}, times, name)
		})
	}
}

func TestARetryAfterThatIsTooLongGivesTheResponseAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		base := fake(func(*http.Request) (*http.Response, error) { return answer(503, "come back", "Retry-After", "7"), nil })
		start := time.Now()
		resp, err := policyhttp.Transport(base, atOnce(2)).RoundTrip(request(t, "GET", "http://bank/", nil).WithContext(ctx))
		require.NoError(t, err)
		require.Equal(t, "come back", readAll(t, resp))
		require.Zero(t, time.Since(start))
	})
}

func TestACancelledCallGetsTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		base, sent := statuses(503)
		r := retry.New(retry.Config{InitialInterval: time.Minute, MaxInterval: time.Minute, Jitter: -1})
		resp, err := policyhttp.Transport(base, r).RoundTrip(request(t, "GET", "http://bank/", nil).WithContext(ctx))
		require.Nil(t, resp)
		require.ErrorIs(t, err, context.Canceled)
		var status *policyhttp.StatusError
		require.ErrorAs(t, err, &status)
		require.Equal(t, 503, status.Code)
		require.EqualError(t, status, "policyhttp: GET bank: status 503")
		require.Equal(t, 1, *sent)
	})
}

func TestABreakerThatOpensBetweenAttemptsDoesNotHideTheResponse(t *testing.T) {
	base, sent := statuses(503)
	b := breaker.New(breaker.Config{ConsecutiveFailures: 1})
	rt := policyhttp.Transport(base, atOnce(3), b)
	resp, err := rt.RoundTrip(request(t, "GET", "http://bank/", nil))
	require.NoError(t, err)
	require.Equal(t, "Service Unavailable", readAll(t, resp))
	require.Equal(t, 1, *sent)

	body := &closing{Reader: strings.NewReader("x")}
	_, err = rt.RoundTrip(request(t, "PUT", "http://bank/", body))
	require.ErrorIs(t, err, breaker.ErrOpen)
	_, direct := err.(*breaker.Error)
	require.True(t, direct, "nothing was sent: the rejection as it is")
	require.Equal(t, 1, body.closed, "the request's body")
}

type closing struct {
	io.Reader
	closed int
}

func (c *closing) Close() error { c.closed++; return nil }

func TestAPolicysErrorInsteadOfAResponseClosesTheResponse(t *testing.T) {
	body := &closing{Reader: strings.NewReader("x")}
	base := fake(func(*http.Request) (*http.Response, error) { return &http.Response{StatusCode: 200, Body: body}, nil })
	resp, err := policyhttp.Transport(base, verdict{errRefused}).RoundTrip(request(t, "GET", "http://bank/", nil))
	require.Nil(t, resp)
	require.Equal(t, errRefused, err)
	require.Equal(t, 1, body.closed)
}

// verdict is a foreign policy that has its own opinion.
type verdict struct{ err error }

func (v verdict) Do(ctx context.Context, op func(context.Context) error) error {
	_ = op(ctx)
	return v.err
}

// idle is a foreign policy that does nothing at all.
type idle struct{}

func (idle) Do(context.Context, func(context.Context) error) error { return nil }

func TestNilWithoutAResponseIsAnError(t *testing.T) {
	base, _ := statuses(200)
	_, err := policyhttp.Transport(base, idle{}).RoundTrip(request(t, "GET", "http://bank/", nil))
	require.ErrorContains(t, err, "without a response")
	nothing := fake(func(*http.Request) (*http.Response, error) { return nil, nil })
	_, err = policyhttp.Transport(nothing).RoundTrip(request(t, "GET", "http://bank/", nil))
	require.ErrorContains(t, err, "neither a response nor an error")
}

func TestThePanicOfTheBaseReleasesEverything(t *testing.T) {
	base := fake(func(*http.Request) (*http.Response, error) { panic("boom") })
	b, h := breaker.New(breaker.Config{}), bulkhead.New(bulkhead.Config{})
	var inner context.Context
	look := fake(func(req *http.Request) (*http.Response, error) { inner = req.Context(); return base(req) })
	rt := policyhttp.Transport(look, b, h, timeout.New(timeout.Config{}))
	require.PanicsWithValue(t, "boom", func() { _, _ = rt.RoundTrip(request(t, "GET", "http://bank/", nil)) })
	require.Equal(t, int64(1), b.Stats().Failures)
	require.Zero(t, h.Stats().Running)
	require.Error(t, inner.Err())
}

func TestPerHostKeepsHostsApart(t *testing.T) {
	set := lookup[*breaker.Breaker]{
		"good": breaker.New(breaker.Config{}), "bad:81": breaker.New(breaker.Config{ConsecutiveFailures: 1}),
	}
	base := fake(func(req *http.Request) (*http.Response, error) {
		if req.URL.Host == "good" {
			return answer(200, ""), nil
		}
		return answer(500, ""), nil
	})
	rt := policyhttp.Transport(base, policyhttp.PerHost(set))
	for range 2 {
		_, err := rt.RoundTrip(request(t, "GET", "http://good/", nil))
		require.NoError(t, err)
	}
	_, err := rt.RoundTrip(request(t, "GET", "http://BAD:81/", nil))
	require.NoError(t, err)
	_, err = rt.RoundTrip(request(t, "GET", "http://bad:81/", nil))
	require.ErrorIs(t, err, breaker.ErrOpen)
	require.Equal(t, int64(2), set["good"].Stats().Calls)
}

func TestPerKeyRepeatsAndHoldsAsThePolicyItself(t *testing.T) {
	tenant := func(r *http.Request) string { return r.Header.Get("Tenant") }
	base, sent := statuses(503, 200)
	h := bulkhead.New(bulkhead.Config{})
	rt := policyhttp.Transport(base,
		policyhttp.PerKey(lookup[*retry.Retrier]{"": atOnce(2)}, tenant), policyhttp.PerKey(lookup[*bulkhead.Bulkhead]{"": h}, tenant))
	resp, err := rt.RoundTrip(request(t, "PUT", "http://bank/", io.NopCloser(strings.NewReader("recorded"))))
	require.NoError(t, err)
	require.Equal(t, 2, *sent)
	require.Equal(t, 1, h.Stats().Running)
	require.Equal(t, "OK", readAll(t, resp))
	require.Zero(t, h.Stats().Running)

	alone := policyhttp.PerKey(lookup[*retry.Retrier]{}, tenant).Do(t.Context(), func(context.Context) error { return nil })
	require.ErrorContains(t, alone, "Transport and Handler only")
}

func TestFaultyArgumentsAreRefused(t *testing.T) {
	require.PanicsWithValue(t, "policyhttp: Transport: policy 1 is nil", func() { policyhttp.Transport(nil, atOnce(1), nil) })
	require.Panics(t, func() { policyhttp.PerKey[string](lookup[*retry.Retrier]{}, nil) })
	require.Panics(t, func() { policyhttp.PerHost[*retry.Retrier](nil) })
	require.Panics(t, func() { policyhttp.Handler(nil) })
	require.Panics(t, func() { policyhttp.Handler(http.NotFoundHandler(), nil) })
	require.PanicsWithValue(t, "policyhttp: Handler: policy 1 is a retrier: a handler cannot run twice", func() {
		policyhttp.Handler(http.NotFoundHandler(), breaker.New(breaker.Config{}), together{atOnce(2)})
	})
}

func TestClosingIdleConnectionsReachesTheBase(t *testing.T) {
	url, base, connections := serve(t, func(http.ResponseWriter, *http.Request) {})
	client := &http.Client{Transport: policyhttp.Transport(policyhttp.Transport(base))}
	for range 3 {
		resp, err := client.Get(url)
		require.NoError(t, err)
		require.Empty(t, readAll(t, resp))
		client.CloseIdleConnections()
	}
	require.Equal(t, int64(3), connections.Load())
	(&http.Client{Transport: policyhttp.Transport(fake(nil))}).CloseIdleConnections()
}

func TestTheRequestIsNotModified(t *testing.T) {
	base, _ := statuses(503, 200)
	req := request(t, "PUT", "http://bank/", strings.NewReader("x"))
	body, header := req.Body, req.Header.Clone()
	resp, err := policyhttp.Transport(base, atOnce(2), timeout.New(timeout.Config{})).RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, body, req.Body)
	require.Equal(t, header, req.Header)
	require.Equal(t, t.Context(), req.Context())
	require.Same(t, req, resp.Request)
	require.NoError(t, resp.Body.Close())
}

func TestAHangingBaseTimesOutAsTheTimeoutSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{Name: "bank", After: time.Second})
		base := fake(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, context.Cause(req.Context())
		})
		_, err := policyhttp.Transport(base, to).RoundTrip(request(t, "GET", "http://bank/", nil))
		require.ErrorIs(t, err, timeout.ErrTimeout)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, timeout.Stats{Calls: 1, TimedOut: 1}, to.Stats())
	})
}

func TestTheCallersCauseReachesTheBase(t *testing.T) {
	errLeft := errors.New("the customer left")
	ctx, cancel := context.WithCancelCause(t.Context())
	base := fake(func(req *http.Request) (*http.Response, error) {
		cancel(errLeft)
		<-req.Context().Done()
		return nil, context.Cause(req.Context())
	})
	to := timeout.New(timeout.Config{})
	_, err := policyhttp.Transport(base, to).RoundTrip(request(t, "GET", "http://bank/", nil).WithContext(ctx))
	require.Equal(t, errLeft, err)
}

// leaving is a foreign policy that cancels its operation.
type leaving struct{ cause error }

func (l leaving) Do(ctx context.Context, op func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	time.AfterFunc(time.Second, func() { cancel(l.cause) })
	return op(ctx)
}

func TestAForeignPolicyCanCancelBeforeTheHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := fake(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		start := time.Now()
		_, err := policyhttp.Transport(base, leaving{errRefused}).RoundTrip(request(t, "GET", "http://bank/", nil))
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestValuesOfEveryContextReachTheBase(t *testing.T) {
	type key struct{}
	base := fake(func(req *http.Request) (*http.Response, error) {
		require.Equal(t, "callers", req.Context().Value(key{}))
		return answer(503, fmt.Sprint("attempt ", retry.Attempt(req.Context()))), nil
	})
	req := request(t, "GET", "http://bank/", nil)
	req = req.WithContext(context.WithValue(req.Context(), key{}, "callers"))
	resp, err := policyhttp.Transport(base, atOnce(2), timeout.New(timeout.Config{}), hasty{}).RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, "attempt 2", readAll(t, resp))
}

// impatient is a foreign timeout that counts what it ended itself.
type impatient struct{ ended *int }

func (p impatient) Do(ctx context.Context, op func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := op(ctx)
	if err != nil && ctx.Err() != nil {
		*p.ended++
	}
	return err
}

func TestAForeignTimeoutRecognisesItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := fake(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		ended := 0
		for range 300 { // two timers fire at one moment, in any order
			_, err := policyhttp.Transport(base, impatient{&ended}).RoundTrip(request(t, "GET", "http://bank/", nil))
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		require.Equal(t, 300, ended)
	})
}

func TestPerHostTakesTheSetsOfThisModule(t *testing.T) {
	base, _ := statuses(500)
	breakers := breaker.NewSet[string](breaker.SetConfig{Each: breaker.Config{ConsecutiveFailures: 1}})
	bulkheads := bulkhead.NewSet[string](bulkhead.SetConfig{Each: bulkhead.Config{MaxConcurrent: 1}})
	rt := policyhttp.Transport(base, policyhttp.PerHost(breakers), policyhttp.PerHost(bulkheads))
	for _, host := range []string{"a", "b"} {
		resp, err := rt.RoundTrip(request(t, "GET", "http://"+host+"/", nil))
		require.NoError(t, err)
		require.Equal(t, 1, bulkheads.Get(host).Stats().Running)
		require.NoError(t, resp.Body.Close())
		require.Zero(t, bulkheads.Get(host).Stats().Running)
		require.Equal(t, breaker.Open, breakers.Get(host).State())
	}
}
