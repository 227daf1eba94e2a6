package policyhttp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
)

// Handler returns next run through policies, the first outermost. A request that they refuse is answered with 429 by a rate
// limiter and with 503 by anything else, with Retry-After in whole seconds, at least 1; next does not run. Its own 429 and 5xx
// are failures that policies see, and so is a request whose context ended before next had written anything, which is
// answered with 503.
//
// The ResponseWriter can flush, hijack and push where the original can, and http.ResponseController reaches the original.
// Policies hold until next returns. Panics pass through. Handler panics on nil and on a retrier: a handler cannot run twice.
func Handler(next http.Handler, policies ...backstay.Policy) http.Handler {
	if next == nil {
		panic("policyhttp: Handler: the handler is nil")
	}
	run := func(ctx context.Context, s *serving) error { return s.serve(ctx, next) }
	for i, policy := range slices.Backward(flatten("Handler", policies)) {
		if _, ok := policy.(*retry.Retrier); ok {
			panic(fmt.Sprintf("policyhttp: Handler: policy %d is a retrier: a handler cannot run twice", i))
		}
		run = serverLayer(run, policy)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &serving{w: &writer{ResponseWriter: w}, r: r}
		if err := run(r.Context(), s); err != nil && !s.w.written() {
			shed(w, err)
		}
	})
}

func serverLayer(fn func(context.Context, *serving) error, policy backstay.Policy) func(context.Context, *serving) error {
	k, ok := policy.(keyed)
	if !ok {
		return backstay.WrapErr(fn, policy)
	}
	return func(ctx context.Context, s *serving) error { return backstay.WrapErr(fn, k.of(s.r))(ctx, s) }
}

// serving is the state of one request.
type serving struct {
	w   *writer
	r   *http.Request
	ran bool
	err error
}

// serve runs the handler, once: a policy that repeats gets the same verdict again.
func (s *serving) serve(ctx context.Context, next http.Handler) error {
	if s.ran {
		return s.err
	}
	s.ran = true
	r := s.r
	if ctx != r.Context() {
		r = r.WithContext(ctx)
	}
	next.ServeHTTP(s.w.view(), r)
	switch {
	case failed(s.w.status):
		s.err = &StatusError{Code: s.w.status, method: r.Method, host: r.Host, permanent: true}
	case !s.w.written():
		s.err = ctx.Err()
	}
	return s.err
}

// shed answers in place of the handler.
func shed(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if errors.Is(err, ratelimit.ErrLimited) {
		status = http.StatusTooManyRequests
	}
	var wait time.Duration
	if a, ok := err.(interface{ RetryAfter() time.Duration }); ok {
		wait = a.RetryAfter()
	}
	seconds := max(1, math.Ceil(wait.Seconds()))
	w.Header().Set("Retry-After", strconv.FormatFloat(seconds, 'f', 0, 64))
	http.Error(w, http.StatusText(status), status)
}
