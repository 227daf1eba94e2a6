package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/console"
)

func Example() {
	bank := breaker.New(breaker.Config{Name: "bank", ConsecutiveFailures: 1})
	c := console.New(console.Config{Name: "orders"})
	c.Add(bank)
	mux := http.NewServeMux()
	mux.Handle("/backstay/", c) // a browser sees the page here

	_ = bank.Do(context.Background(), func(context.Context) error { return errors.New("connection refused") })
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/backstay/api", nil))
	var now struct {
		Objects []struct{ Kind, Name, Status, Why string }
	}
	err := json.Unmarshal(w.Body.Bytes(), &now)
	fmt.Println(now.Objects, err)
	// Output: [{breaker bank degraded open}] <nil>
}

func ExampleConsole_Readiness() {
	bank := breaker.New(breaker.Config{Name: "bank", Mode: "force_open"})
	c := console.New(console.Config{Name: "orders"})
	c.Add(bank)
	ready := c.Readiness(console.Check{Name: "database", Probe: func(context.Context) error {
		return nil // db.PingContext
	}})
	w := httptest.NewRecorder()
	ready.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 200 {"status":"degraded","checks":{"database":"ok"},"degraded":[{"kind":"breaker","name":"bank","why":"open"}]}
}

func ExampleWithActions() {
	bank := breaker.New(breaker.Config{Name: "bank"})
	mode := func(mode string) func(context.Context, *breaker.Breaker) error {
		return func(_ context.Context, b *breaker.Breaker) error {
			cfg := b.Config()
			cfg.Mode = mode
			return b.Reconfigure(cfg)
		}
	}
	operatorsOnly := func(r *http.Request, a console.Attempt) error {
		if user, _, ok := r.BasicAuth(); !ok || user != "operator" {
			return errors.New("only operators may do this")
		}
		return nil // and write down who did what
	}
	c := console.New(console.Config{Name: "orders"}, console.WithActions(operatorsOnly,
		console.On("force_open", "Force open", mode("force_open")),
		console.On("automatic", "Leave it to itself", mode("auto")),
	))
	c.Add(bank)
	// What the page does when the button is pressed.
	for _, user := range []string{"guest", "operator"} {
		r := httptest.NewRequest(http.MethodPost, "/api/objects/1/actions/force_open", strings.NewReader("{}"))
		r.Header.Set("X-Backstay-Action", "1")
		r.SetBasicAuth(user, "")
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		fmt.Println(w.Code, bank.State())
	}
	// Output:
	// 403 closed
	// 200 open
}

func ExampleConsole_Record() {
	c := console.New(console.Config{Name: "orders"})
	bank := breaker.New(breaker.Config{Name: "bank", ConsecutiveFailures: 1}, breaker.OnStateChange(func(e breaker.Transition) {
		c.Record(console.Event{Kind: "breaker", Name: e.Name, Level: console.Degraded, Text: e.To.String()})
	}))
	_ = bank.Do(context.Background(), func(context.Context) error { return errors.New("connection refused") })
	w := httptest.NewRecorder()
	c.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api", nil))
	var now struct {
		Events []struct{ Name, Level, Text string }
	}
	err := json.Unmarshal(w.Body.Bytes(), &now)
	fmt.Println(now.Events, err)
	// Output: [{bank degraded open}] <nil>
}
