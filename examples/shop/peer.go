package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/saga"
)

// A peer is another service as its callers see it: JSON over HTTP, through the policies that the caller chose.
type peer struct {
	name string
	base string
	http *http.Client
	send backstay.Func[call, answer]
}

type call struct {
	method string
	path   string
	body   any
}

// An answer is a reply in full, so that nothing is left to read when an attempt is given up.
type answer struct {
	code int
	wait time.Duration
	body []byte
}

func newPeer(name, base string, client *http.Client, policies ...backstay.Policy) *peer {
	p := &peer{name: name, base: base, http: client}
	// Only a peer that is unwell counts as a failure; its considered "no" is a result like any other.
	p.send = backstay.Wrap(backstay.Check(p.exchange, p.wellness), policies...)
	return p
}

// call sends in and decodes the answer into out, where they are not nil. A refusal comes back as *refusal.
func (p *peer) call(ctx context.Context, method, path string, in, out any) error {
	a, err := p.send(ctx, call{method, path, in})
	if err != nil {
		return err
	}
	if a.code >= 300 {
		return p.refusal(a)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(a.body, out)
}

func (p *peer) wellness(a answer) error {
	if a.code < 500 {
		return nil
	}
	return p.refusal(a)
}

func (p *peer) refusal(a answer) *refusal {
	var said struct{ Error, Outcome string }
	_ = json.Unmarshal(a.body, &said) // whatever it said, the status is what counts
	for _, reason := range []string{said.Error, said.Outcome} {
		if reason != "" {
			return &refusal{Code: a.code, Reason: reason, Wait: a.wait}
		}
	}
	return &refusal{Code: a.code, Reason: fmt.Sprintf("%s: %d %s", p.name, a.code, http.StatusText(a.code)), Wait: a.wait}
}

// exchange is one attempt: request and reply.
func (p *peer) exchange(ctx context.Context, c call) (answer, error) {
	var body bytes.Buffer
	if c.body != nil {
		if err := json.NewEncoder(&body).Encode(c.body); err != nil {
			return answer{}, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, c.method, p.base+c.path, &body)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if key := saga.IdempotencyKey(ctx); key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", p.name, err)
	}
	defer resp.Body.Close()
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // absent or a date: no hint
	a := answer{code: resp.StatusCode, wait: time.Duration(seconds) * time.Second}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return a, err
}
