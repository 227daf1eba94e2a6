package policyhttp

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// StatusError is how policies, their classifiers and their hooks see a response with status 429 or 5xx. The caller of a
// Transport gets the response itself. It wraps nothing, and two of them are never the same.
type StatusError struct {
	Code int // the status, such as 503

	method, host string
	wait         time.Duration
	permanent    bool
}

// Error names the method, the host and the status. Path and query are left out, since they may hold secrets.
func (e *StatusError) Error() string {
	return fmt.Sprintf("policyhttp: %s %s: status %d", e.method, e.host, e.Code)
}

// RetryAfter is what the header Retry-After asks for, in seconds or as a date, or 0. A date is measured from the response's own
// Date, so that the clocks of both sides need not agree.
func (e *StatusError) RetryAfter() time.Duration { return e.wait }

// Permanent is true when the request must not or cannot be sent again: its method is not idempotent and it has no
// Idempotency-Key, or its body is gone.
func (e *StatusError) Permanent() bool { return e.permanent }

// failed reports whether status is a failure for the policies.
func failed(status int) bool { return status == http.StatusTooManyRequests || status >= 500 }

// retryAfter reads the header Retry-After (RFC 9110, section 10.2.3). What cannot be read counts as absent.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, math.MaxInt64/uint64(time.Second))) * time.Second
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	sent, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		sent = time.Now()
	}
	return max(0, date.Sub(sent))
}

// unrepeatable marks an error of a request that must not be sent again. Nothing else about the error changes.
type unrepeatable struct{ error }

func (e *unrepeatable) Unwrap() error   { return e.error }
func (e *unrepeatable) Permanent() bool { return true }

// Rejected forwards what the error says.
func (e *unrepeatable) Rejected() bool {
	r, ok := e.error.(interface{ Rejected() bool })
	return ok && r.Rejected()
}

// RetryAfter forwards what the error says.
func (e *unrepeatable) RetryAfter() time.Duration {
	if r, ok := e.error.(interface{ RetryAfter() time.Duration }); ok {
		return r.RetryAfter()
	}
	return 0
}
