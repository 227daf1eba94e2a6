package policyhttp_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

func ExampleTransport() {
	answers := []int{503, 503, 200}
	bank := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(answers[0])
		answers = answers[1:]
	}))
	defer bank.Close()

	client := &http.Client{Transport: policyhttp.Transport(nil,
		timeout.New(timeout.Config{Name: "bank, all attempts", After: 10 * time.Second}),
		retry.New(retry.Config{Name: "bank", InitialInterval: time.Millisecond}),
		breaker.New(breaker.Config{Name: "bank"}),
		bulkhead.New(bulkhead.Config{Name: "bank", MaxConcurrent: 20}),
	)}
	defer client.CloseIdleConnections()
	resp, err := client.Get(bank.URL + "/balance")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status, "with", len(answers), "answers left")
	// Output: 200 OK with 0 answers left
}

func ExampleHandler() {
	limiter := ratelimit.New(ratelimit.Config{Name: "orders", Rate: 0.5, Burst: 1})
	orders := policyhttp.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "accepted")
	}), limiter)
	for range 2 {
		w := httptest.NewRecorder()
		orders.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/orders", nil))
		fmt.Printf("%d %s, retry after: %q\n", w.Code, strings.TrimSpace(w.Body.String()), w.Header().Get("Retry-After"))
	}
	// Output:
	// 200 accepted, retry after: ""
	// 429 Too Many Requests, retry after: "2"
}

func ExamplePerKey() {
	tenants := ratelimit.NewSet[string](ratelimit.SetConfig{Each: ratelimit.Config{Rate: 1, Burst: 1}})
	byTenant := policyhttp.PerKey(tenants, func(r *http.Request) string { return r.Header.Get("Tenant") })
	h := policyhttp.Handler(http.NotFoundHandler(), byTenant)
	for _, tenant := range []string{"blue", "blue", "red"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Tenant", tenant)
		h.ServeHTTP(w, r)
		fmt.Println(tenant, w.Code)
	}
	// Output:
	// blue 404
	// blue 429
	// red 404
}
