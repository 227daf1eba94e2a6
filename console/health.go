package console

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// Check is something without which the service cannot do its work.
type Check struct {
	// Name is what the answer calls it.
	Name string
	// Probe returns nil when all is well. Its context ends after Config.CheckTimeout. It is never called twice at once.
	Probe func(ctx context.Context) error
}

// check runs a Check, of which there is at most one at a time: a probe that hangs is not joined by others.
type check struct {
	Check
	busy chan struct{}
}

// Liveness answers 200 as long as the process can answer at all, and looks at nothing: a process that is restarted because its
// database is away is of no more use afterwards.
func (c *Console) Liveness() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if only(w, r, http.MethodGet, http.MethodHead) {
			w.Header().Set("Cache-Control", "no-store")
			answer(w, r, []byte(`{"status":"alive"}`))
		}
	})
}

// readiness is what Readiness answers.
type readiness struct {
	Status  string            `json:"status"`
	Checks  map[string]string `json:"checks,omitempty"`
	Objects []ailment         `json:"degraded,omitempty"`
}

type ailment struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Why  string `json:"why"`
}

// Readiness answers 503 while one of the checks fails and after Close, and 200 otherwise. Objects that are not well, such as an open
// breaker, are listed and make the status "degraded", which is still 200: a service that lives without one dependency is of more
// use than one that is taken out of service in all its copies at once. The answer names objects and quotes errors of checks: it is
// for the inside. Readiness panics on a check without a Name or a Probe.
func (c *Console) Readiness(checks ...Check) http.Handler {
	all := make([]*check, len(checks))
	for i, ch := range checks {
		if ch.Name == "" || ch.Probe == nil {
			panic("console: Readiness: a check needs a Name and a Probe")
		}
		all[i] = &check{Check: ch, busy: make(chan struct{}, 1)}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !only(w, r, http.MethodGet, http.MethodHead) {
			return
		}
		now, code := c.ready(r.Context(), all)
		body, err := json.Marshal(now)
		if err != nil { // strings never fail
			code, body = http.StatusInternalServerError, []byte("{}")
		}
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if r.Method != http.MethodHead {
			_, _ = w.Write(append(body, '\n'))
		}
	})
}

func (c *Console) ready(ctx context.Context, all []*check) (readiness, int) {
	now, code := readiness{Status: "ready", Checks: map[string]string{}}, http.StatusOK
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CheckTimeout)
	defer cancel()
	said := make([]string, len(all))
	var waiting sync.WaitGroup
	for i, ch := range all {
		waiting.Go(func() { said[i] = ch.ask(ctx) })
	}
	c.glance(ctx, time.Second)
	waiting.Wait()
	c.mu.Lock()
	closed := c.closed
	for _, e := range c.entries {
		if e.verdict.level != OK {
			now.Objects = append(now.Objects, ailment{e.kind, e.name, e.verdict.why})
			now.Status = Degraded.String()
		}
	}
	c.mu.Unlock()
	for i, ch := range all {
		now.Checks[clean(ch.Name, maxName)] = said[i]
		if said[i] != "ok" {
			now.Status, code = Failed.String(), http.StatusServiceUnavailable
		}
	}
	if closed {
		now.Status, code = "closed", http.StatusServiceUnavailable
	}
	return now, code
}

// ask runs the probe, and leaves one behind that does not heed its context.
func (ch *check) ask(ctx context.Context) string {
	select {
	case ch.busy <- struct{}{}:
	case <-ctx.Done():
		return "an earlier probe has not returned yet"
	}
	answer := make(chan string, 1)
	go func() {
		defer func() { <-ch.busy }()
		said := "ok"
		fault := guarded(func() {
			if err := ch.Probe(ctx); err != nil {
				said = clean(err.Error(), maxText)
			}
		})
		if fault != "" {
			said = "the probe " + fault
		}
		answer <- said
	}()
	select {
	case said := <-answer:
		return said
	case <-ctx.Done():
		return "no answer in time"
	}
}
