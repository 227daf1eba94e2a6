package bench

import (
	"context"
	"net/http"
	"testing"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/retry"
)

const clientCase = "HTTP over a fake transport, retry and breaker"

// fake answers at once, so that only the policies cost.
type fake struct{}

func (fake) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
}

func clients(l *list) {
	add := func(name string, t http.RoundTripper) {
		l.cases = append(l.cases, Case{area, clientCase, name, roundTrips(t)})
	}
	add(Floor, fake{})
	add(ours, policyhttp.Transport(fake{}, retry.New(retry.Config{}), breaker.New(breaker.Config{})))
	add(failsafeName, failsafehttp.NewRoundTripper(fake{}, failsafehttp.NewRetryPolicyBuilder().Build(),
		circuitbreaker.NewBuilder[*http.Response]().WithFailureThresholdRatio(50, 100).Build()))
}

func roundTrips(t http.RoundTripper) func(*testing.B) {
	return func(b *testing.B) {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://example.test/", http.NoBody)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			resp, err := t.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			if err := resp.Body.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
