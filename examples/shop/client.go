package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/retry"
)

const (
	clientInFlight = 256
	clientTimeout  = 10 * time.Second // of one attempt
	clientPatience = 30 * time.Second // with one request, all attempts
	firePatience   = 2 * time.Minute  // the same when services die again and again
	lookTimeout    = 2 * time.Second

	oldLinkShare = 0.1 // of the shoppers come by a link to a product that is no longer sold
	discontinued = "P000"
)

// A client is all customers together: it places requests at the shop's public address and writes down every final answer.
// It is made for one run.
type client struct {
	db   *sql.DB
	base string
	rate float64
	http *http.Client

	patience time.Duration // with one request, all attempts
	send     func(context.Context, placement) (response, error)

	placed   atomic.Int64 // sent for the first time, now or in an earlier run
	answered atomic.Int64 // of these, with a final answer that is written down
	accepted atomic.Int64 // of these, with a 2xx
}

// A placement is a request on its way.
type placement struct {
	id, kind, path string
	body           []byte
}

// A response is what the customer is told; code 0 stands for no answer at all.
type response struct {
	code   int
	reason string
}

// newClient places rate requests per second, or as many as it can when rate is not above 0, at the gateway with the URL
// base. db holds the table of clientSchema; the caller closes it.
func newClient(db *sql.DB, base string, rate float64) *client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = clientInFlight
	c := &client{db: db, base: base, rate: rate, http: &http.Client{Transport: transport}}
	c.wait(8, clientPatience)
	return c
}

// wait says how often and how long customers try. Negative attempts: as often as they have time for.
func (c *client) wait(attempts int, patience time.Duration) {
	c.patience = patience
	// Two retriers with different patience: the inner one for a gateway that does not answer, the outer one for an order
	// that is still being processed.
	outage := retry.New(retry.Config{Name: "gateway", MaxAttempts: attempts, MaxInterval: 2 * time.Second},
		retry.WithRetryable(func(err error) bool { return !isUnripe(err) }))
	unripe := retry.New(retry.Config{Name: "cancellation", MaxAttempts: -1, MaxInterval: time.Second}, retry.WithRetryable(isUnripe))
	c.send = retry.Wrap(unripe, retry.Wrap(outage, c.post))
}

// run places the requests in order, without waiting for answers but never more than 256 at once, and returns when all are
// answered. A cancellation waits for the answer to its order. Requests that an earlier run has an answer to are not placed
// again. When ctx is done it places no more, ends the attempts it is at, and returns nil: what then has no answer is left
// for the next run. An error means that answers could not be written down.
func (c *client) run(ctx context.Context, requests []request) error {
	defer c.http.CloseIdleConnections()
	known, err := c.known(ctx)
	if err != nil {
		return err
	}
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var (
		flight  sync.WaitGroup
		slots   = make(chan struct{}, clientInFlight)
		ordered = map[string]chan struct{}{}
		start   = time.Now()
		sent    int
	)
	for _, r := range requests {
		p, err := place(r)
		if err != nil {
			stop(err)
			break
		}
		if code, ok := known[p.id]; ok {
			c.placed.Add(1)
			c.count(code)
			continue
		}
		if !c.due(work, start, sent) || !enter(work, slots) {
			break
		}
		sent++
		done := make(chan struct{})
		var before chan struct{}
		if r.Order != nil {
			ordered[p.id] = done
		} else {
			before = ordered[r.Cancel.OrderID]
		}
		flight.Go(func() {
			defer func() { close(done); <-slots }()
			if err := c.serve(work, r, p, before); err != nil {
				stop(err)
			}
		})
	}
	flight.Wait()
	if cause := context.Cause(work); cause != nil && !errors.Is(cause, context.Cause(ctx)) {
		return cause
	}
	return nil
}

// due waits until it is time for the nth request.
func (c *client) due(ctx context.Context, start time.Time, n int) bool {
	if c.rate <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(time.Until(start.Add(time.Duration(float64(n) / c.rate * float64(time.Second)))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func enter(ctx context.Context, slots chan<- struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve sees one request through, as a shopper does: a look at the product, the order, a look at what became of it. before
// is closed when the order that a cancellation is about was answered.
func (c *client) serve(ctx context.Context, r request, p placement, before <-chan struct{}) error {
	if before != nil {
		select {
		case <-before:
		case <-ctx.Done():
			return nil
		}
	}
	c.placed.Add(1)
	if r.Order != nil {
		if luck(0, "old link", p.id) < oldLinkShare {
			c.look(ctx, "/api/products/"+discontinued)
		}
		c.look(ctx, "/api/products/"+url.PathEscape(r.Order.Lines[0].SKU))
	}
	patient, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	answer, err := c.send(patient, p)
	if err != nil {
		if ctx.Err() != nil {
			return nil // interrupted: nobody knows yet
		}
		answer = lastWord(err)
	}
	if err := c.note(ctx, p, answer); err != nil {
		return err
	}
	c.count(answer.code)
	if r.Order != nil {
		c.look(ctx, "/api/orders/"+url.PathEscape(p.id))
	}
	return nil
}

// look fetches a page of the shop; a shopper who does not get it goes on.
func (c *client) look(ctx context.Context, path string) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return
	}
	if resp, err := c.http.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

// post is one attempt. It is not cut off when the client is told to stop: the answer may be on its way.
func (c *client) post(ctx context.Context, p placement) (response, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clientTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+p.path, bytes.NewReader(p.body))
	if err != nil {
		return response{}, retry.Permanent(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return response{}, err
	}
	answer := response{code: resp.StatusCode}
	if answer.code >= 300 {
		var said struct{ Error string }
		_ = json.Unmarshal(body, &said) // whatever it said, the code is what counts
		answer.reason = said.Error
	}
	again := resp.Header.Get("Retry-After")
	if answer.code >= 500 || answer.code == http.StatusTooManyRequests || answer.code == http.StatusConflict && again != "" {
		seconds, _ := strconv.Atoi(again) // absent or a date: no hint
		return answer, &notNow{response: answer, wait: time.Duration(seconds) * time.Second}
	}
	return answer, nil
}

// notNow is an answer that may be another one later.
type notNow struct {
	response
	wait time.Duration
}

func (e *notNow) Error() string             { return fmt.Sprintf("%d %s", e.code, e.reason) }
func (e *notNow) RetryAfter() time.Duration { return e.wait }

// isUnripe recognises the answer about an order that is still being processed.
func isUnripe(err error) bool {
	e, ok := errors.AsType[*notNow](err)
	return ok && e.code == http.StatusConflict
}

// lastWord is what remains to be told when all attempts have failed.
func lastWord(err error) response {
	if e, ok := errors.AsType[*notNow](err); ok {
		return e.response
	}
	return response{reason: err.Error()}
}

func place(r request) (p placement, err error) {
	if r.Order != nil {
		p = placement{id: r.Order.ID, kind: "order", path: "/api/orders"}
		p.body, err = json.Marshal(r.Order)
		return p, err
	}
	p = placement{id: r.Cancel.ID, kind: "cancellation", path: "/api/orders/" + url.PathEscape(r.Cancel.OrderID) + "/cancellations"}
	p.body, err = json.Marshal(r.Cancel)
	return p, err
}

// known are the codes of requests answered in earlier runs, by id.
func (c *client) known(ctx context.Context) (map[string]int, error) {
	rows, err := c.db.QueryContext(context.WithoutCancel(ctx), `SELECT id, code FROM answers`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	codes := map[string]int{}
	for rows.Next() {
		var id string
		var code int
		if err := rows.Scan(&id, &code); err != nil {
			return nil, err
		}
		codes[id] = code
	}
	return codes, rows.Err()
}

func (c *client) note(ctx context.Context, p placement, answer response) error {
	_, err := c.db.ExecContext(context.WithoutCancel(ctx),
		`INSERT INTO answers (id, kind, code, reason) VALUES ($1, $2, $3, $4)`, p.id, p.kind, answer.code, answer.reason)
	if err != nil {
		return fmt.Errorf("the answer to %s %s: %w", p.kind, p.id, err)
	}
	return nil
}

func (c *client) count(code int) {
	c.answered.Add(1)
	if code >= 200 && code < 300 {
		c.accepted.Add(1)
	}
}
