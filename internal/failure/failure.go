// Package failure reads the behaviour of errors through the small interfaces that the packages of this library share
// without importing one another.
//
// Every question is asked of the error itself, by direct assertion and never through Unwrap: once application code
// has wrapped the rejection of something deeper, the error is that operation's own failure.
package failure

import "time"

// Rejected reports whether err says that it was refused locally, so that the operation did not run.
func Rejected(err error) bool {
	r, ok := err.(interface{ Rejected() bool })
	return ok && r.Rejected()
}

// Permanent reports whether err says that repeating the operation cannot help.
func Permanent(err error) bool {
	p, ok := err.(interface{ Permanent() bool })
	return ok && p.Permanent()
}

// RetryAfter is how long err asks to wait before a repetition, or 0 when it does not say.
func RetryAfter(err error) time.Duration {
	r, ok := err.(interface{ RetryAfter() time.Duration })
	if !ok {
		return 0
	}
	return r.RetryAfter()
}

// Plain reports whether err has none of the methods that these questions, or package errors, look for: one look that
// spares the others, since most errors say nothing.
func Plain(err error) bool {
	switch err.(type) {
	case interface{ Rejected() bool }, interface{ Permanent() bool }, interface{ RetryAfter() time.Duration },
		interface{ As(any) bool }, interface{ Unwrap() error }, interface{ Unwrap() []error }:
		return false
	}
	return true
}
