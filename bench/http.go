package bench

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	failsafetimeout "github.com/failsafe-go/failsafe-go/timeout"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/retry"
)

const (
	clientCase      = "HTTP over a fake transport, retry and breaker"
	timedClientCase = "HTTP over a fake transport, retry, breaker and attempt timeout"
)

// fake answers at once, so that only the policies cost.
type fake struct{}

func (fake) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
}

// wired looks at the end of its context and answers with a body, as every transport does that has a network: both are what a
// timeout has to do with.
type wired struct{}

func (wired) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	default:
		body := io.NopCloser(strings.NewReader("answer"))
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body, Request: req}, nil
	}
}

func clients(l *list) {
	add := func(work, name string, t http.RoundTripper) {
		l.append(work, name, roundTrips(t))
	}
	add(clientCase, Floor, fake{})
	add(clientCase, ours, policyhttp.Transport(fake{}, retry.New(retry.Config{}), breaker.New(breaker.Config{})))
	add(clientCase, failsafeName, failsafehttp.NewRoundTripper(fake{}, failsafehttp.NewRetryPolicyBuilder().Build(), failsafeHTTPBreaker()))
	add(timedClientCase, Floor, wired{})
	add(timedClientCase, ours, policyhttp.Transport(wired{}, retry.New(retry.Config{}), breaker.New(breaker.Config{}), minute()))
	add(timedClientCase, failsafeName, failsafehttp.NewRoundTripper(wired{}, failsafehttp.NewRetryPolicyBuilder().Build(),
		failsafeHTTPBreaker(), failsafetimeout.New[*http.Response](time.Minute)))
}

func failsafeHTTPBreaker() circuitbreaker.CircuitBreaker[*http.Response] {
	return circuitbreaker.NewBuilder[*http.Response]().WithFailureThresholdRatio(50, 100).Build()
}

func roundTrips(t http.RoundTripper) func(*testing.B) {
	return func(b *testing.B) {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://example.test/", http.NoBody)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		buf := make([]byte, 512)
		for b.Loop() {
			resp, err := t.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			for err == nil {
				_, err = resp.Body.Read(buf)
			}
			if err := resp.Body.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
