package policyhttp

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/backstay-go/backstay"
)

// Transport returns base, or http.DefaultTransport when base is nil, run through policies, the first outermost. Each hop of a
// redirect is one call. The result is safe for concurrent use when base is; closing idle connections reaches base.
//
// RoundTrip returns what the last attempt gave, a failed status included; a policy's own error, such as *breaker.Error, when
// nothing was sent; *retry.Error when several attempts ended without a response; and an error whenever the request's context
// is done. Transport panics on a nil policy.
func Transport(base http.RoundTripper, policies ...backstay.Policy) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	t := &transport{base: base}
	policies = flatten("Transport", policies)
	t.run = t.attempt
	for _, policy := range slices.Backward(policies) {
		t.repeats = t.repeats || repeats(policy)
		t.run = layer(t.run, policy)
	}
	return t
}

type transport struct {
	base    http.RoundTripper
	repeats bool // whether a policy may ask for a second attempt
	run     roundTrip
}

// RoundTrip sends one request through the policies.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ex := &exchange{req: req, repeats: t.repeats && idempotent(req)}
	if ex.repeats && hasBody(req) && req.GetBody == nil {
		ex.replay = &replay{src: req.Body}
	}
	resp, err := t.run(req.Context(), ex)
	return ex.finish(resp, err)
}

// CloseIdleConnections passes the wish of http.Client on.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// attempt is the innermost function: it sends the request once. Asked again for a request that must not be repeated, it sends
// nothing and answers as before, so that not even a policy that repeats everything can repeat a payment.
func (t *transport) attempt(ctx context.Context, ex *exchange) (*http.Response, error) {
	if ex.sent && !ex.repeatable() {
		return ex.resp, ex.err
	}
	ex.resp, ex.err = nil, nil // should the base panic, there is no earlier answer to fall back to
	resp, err := t.send(ctx, ex)
	ex.resp = resp
	switch {
	case err == nil && failed(resp.StatusCode):
		err = &StatusError{Code: resp.StatusCode, method: ex.req.Method, host: ex.req.URL.Host,
			wait: retryAfter(resp.Header), permanent: !ex.repeatable()}
	case err != nil && t.repeats && !ex.repeatable():
		err = &unrepeatable{err}
	}
	ex.err = err
	return resp, err
}

func (t *transport) send(ctx context.Context, ex *exchange) (*http.Response, error) {
	req, err := ex.next(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp == nil {
		return nil, errors.New("policyhttp: Transport: the base returned neither a response nor an error")
	}
	resp.Request = ex.req
	if failed(resp.StatusCode) && ex.repeatable() {
		readAhead(resp)
	}
	return resp, nil
}

// exchange is the state of one RoundTrip. One goroutine at a time uses it, since no policy runs an operation twice at once.
type exchange struct {
	req     *http.Request
	repeats bool    // whether the policies and the method allow a second attempt
	replay  *replay // records the body while it is sent, when there is no other way to send it again
	sent    bool
	resp    *http.Response // of the latest attempt, until it is discarded
	err     error          // of the latest attempt
	first   body           // of the first response that has to be wrapped
}

// hold runs fn, and ends h when the body of the response that came of it ends, or at once where there is none to read.
func (ex *exchange) hold(ctx context.Context, h held, fn roundTrip) (*http.Response, error) {
	before, kept := ex.resp, false
	defer func() {
		if !kept {
			_ = h.End(nil)
		}
	}()
	resp, err := fn(ctx, ex)
	if latest := ex.resp; latest != nil && latest != before { // the caller may get it though fn did not return it
		kept = ex.holdUntilEnd(latest, h)
	}
	if kept && (err == nil || ctx.Err() == nil) {
		return resp, err
	}
	return resp, h.End(err) // where the time is over, there is no body to wait for
}

// repeatable reports whether the request may be, and can be, sent again.
func (ex *exchange) repeatable() bool {
	return ex.repeats && (ex.replay == nil || ex.replay.complete())
}

// next is the request to send now. The caller's own serves for the first attempt if nothing in it has to differ.
func (ex *exchange) next(ctx context.Context) (*http.Request, error) {
	again := ex.sent
	ex.sent = true
	if !again && ex.replay == nil && ctx == ex.req.Context() {
		return ex.req, nil
	}
	req := ex.req.WithContext(ctx)
	switch {
	case ex.replay != nil:
		req.Body = ex.replay.open()
	case again && hasBody(req):
		body, err := req.GetBody()
		if err != nil {
			return nil, &unrepeatable{err}
		}
		req.Body = body
	}
	return req, nil
}

// discard gives up the response of the attempt before, unless it holds nothing: then it is kept in case no other follows.
func (ex *exchange) discard() {
	if ex.resp != nil && ex.repeatable() && !spent(ex.resp) {
		_ = ex.resp.Body.Close() // nobody reads it any more
		ex.resp, ex.err = nil, nil
	}
}

// finish turns the verdict of the policies into what a RoundTripper may return.
func (ex *exchange) finish(resp *http.Response, err error) (*http.Response, error) {
	ex.release()
	if err == nil && resp == nil {
		err = errors.New("policyhttp: Transport: a policy returned nil without a response")
	}
	if err == nil {
		return resp, nil
	}
	if status, ok := errors.AsType[*StatusError](err); ok && ex.err == status && ex.resp != nil && ex.req.Context().Err() == nil {
		return ex.resp, nil
	}
	if ex.resp != nil && ex.resp.Body != nil {
		_ = ex.resp.Body.Close() // the caller gets the error instead
	}
	if u, ok := err.(*unrepeatable); ok {
		err = u.error
	}
	return nil, err
}

// release closes the request's body where base did not.
func (ex *exchange) release() {
	switch {
	case ex.replay != nil:
		ex.replay.finish()
		ex.replay = nil // the wrapper of the response's body keeps the exchange, but not what was recorded
	case !ex.sent && ex.req.Body != nil:
		_ = ex.req.Body.Close() // it was never read
	}
}

// idempotent reports whether req may be sent twice: by its method (RFC 9110, section 9.2.2), or since it says so itself.
func idempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if _, ok := req.Header[name]; ok {
			return true
		}
	}
	return false
}

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }
