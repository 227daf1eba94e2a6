package console_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/console"
)

type readiness struct {
	Status   string
	Checks   map[string]string
	Degraded []struct{ Kind, Name, Why string }
}

func ready(t *testing.T, h http.Handler) (int, readiness) {
	t.Helper()
	w := get(h, "/readyz")
	return w.Code, decode[readiness](t, w.Body.String())
}

func TestAnOpenBreakerDegradesReadinessAndDoesNotKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := breakerThing("bank", 0)
		c := console.New(console.Config{})
		c.Add(o, breakerThing("stock", 0))
		h := c.Readiness(console.Check{Name: "db", Probe: func(context.Context) error { return nil }})
		code, r := ready(t, h)
		require.Equal(t, 200, code)
		require.Equal(t, readiness{Status: "ready", Checks: map[string]string{"db": "ok"}}, r)

		o.set("state", 1)
		time.Sleep(2 * time.Second)
		code, r = ready(t, h)
		require.Equal(t, 200, code)
		require.Equal(t, "degraded", r.Status)
		require.Len(t, r.Degraded, 1)
		require.Equal(t, "bank", r.Degraded[0].Name)
		require.Equal(t, "open", r.Degraded[0].Why)
		require.Equal(t, 200, get(c.Liveness(), "/livez").Code)

		o.set("state", 0)
		time.Sleep(2 * time.Second)
		_, r = ready(t, h)
		require.Equal(t, "ready", r.Status)
	})
}

func TestReadinessIsThatOfTheChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var err error
		let := make(chan struct{})
		var hung atomic.Int64
		c := console.New(console.Config{})
		db := console.Check{Name: "db", Probe: func(context.Context) error { return err }}
		bad := console.Check{Name: "bad", Probe: func(context.Context) error { panic("broken") }}
		stuck := console.Check{Name: "stuck", Probe: func(context.Context) error { hung.Add(1); <-let; return nil }}

		h := c.Readiness(db)
		err = errors.New("no route")
		code, r := ready(t, h)
		require.Equal(t, 503, code)
		require.Equal(t, "failed", r.Status)
		require.Equal(t, "no route", r.Checks["db"])
		err = nil
		code, _ = ready(t, h)
		require.Equal(t, 200, code)

		code, r = ready(t, c.Readiness(db, bad))
		require.Equal(t, 503, code)
		require.Equal(t, "the probe panics: broken", r.Checks["bad"])

		h = c.Readiness(db, stuck)
		start := time.Now()
		code, r = ready(t, h)
		require.Equal(t, 503, code)
		require.Equal(t, time.Second, time.Since(start), "CheckTimeout")
		require.Equal(t, "no answer in time", r.Checks["stuck"])
		require.Equal(t, "ok", r.Checks["db"])
		for range 5 {
			_, r = ready(t, h)
			require.Contains(t, r.Checks["stuck"], "not returned")
		}
		require.EqualValues(t, 1, hung.Load(), "probes do not pile up")
		close(let)
		synctest.Wait()
		code, _ = ready(t, h)
		require.Equal(t, 200, code)

		c.Close()
		code, r = ready(t, h)
		require.Equal(t, 503, code)
		require.Equal(t, "closed", r.Status)
		require.Equal(t, 200, get(c.Liveness(), "/livez").Code, "a service that shuts down is alive")
	})
}

func TestHealthIsForReading(t *testing.T) {
	c := console.New(console.Config{})
	for _, h := range []http.Handler{c.Liveness(), c.Readiness()} {
		for method, code := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "DELETE": 405} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
			require.Equal(t, code, w.Code, method)
			require.Equal(t, method == "HEAD", w.Body.Len() == 0)
		}
	}
}
