// Package cases puts libraries through the same 25 behavioural cases, T1 to T25: what a circuit breaker, a retrier, a bulkhead,
// a rate limit, a timeout and an HTTP client have to do when things go wrong. A case knows nothing about libraries; a subject is a
// library behind small adapters, configured as well as its documentation allows. A case may hang or kill its process, so [Run] gives
// each one a child process of its own with a deadline, built with the race detector, and real time.
package cases

import (
	"errors"
	"fmt"
	"time"
)

// Case is one behaviour.
type Case struct {
	ID    string // "T01" to "T25"
	Title string
	run   func(s *Subject) error
}

// Subject is a library under test. What it does not offer is nil, and the cases about it do not apply.
type Subject struct {
	Key  string // for the command line
	Name string // with its version

	breaker  func(circuitSpec) circuit
	retry    func(retrySpec) retrier
	client   func(attempts int, delay time.Duration) transport
	bulkhead *bulkheads
	limiter  func(every time.Duration) limiter
	timeouts []timeoutKind
	abandon  func(limit time.Duration) runner
	derive   func() (first, second []string)
	layers   *layers
}

// notApplicable says why a case cannot be put to a subject.
type notApplicable string

func (n notApplicable) Error() string { return string(n) }

const (
	noBreaker  = notApplicable("has no breaker")
	noRetry    = notApplicable("has no retry")
	noClient   = notApplicable("has no HTTP client")
	noBulkhead = notApplicable("has no bulkhead")
	noLimiter  = notApplicable("has no rate limit")
	noTimeout  = notApplicable("has no timeout or hedge that runs operations")
	noCompose  = notApplicable("does not compose policies")
)

// All returns the cases in order.
func All() []Case {
	return []Case{
		{"T01", "half-open admits exactly 3 of 30", onBreaker(halfOpenAdmitsExactly)},
		{"T02", "late completions neither change state nor free probe slots", onBreaker(lateCompletions)},
		{"T03", "a late success does not close", onBreaker(lateSuccess)},
		{"T04", "the sliding window catches failures across an edge, and forgets", onBreaker(slidingWindow)},
		{"T05", "failures slower than the window count", onBreaker(slowFailures)},
		{"T06", "a panic in a probe frees its slot", onBreaker(panickingProbe)},
		{"T07", "Goexit in a probe frees its slot", onBreaker(exitingProbe)},
		{"T08", "a panic counts as a failure", onBreaker(panicIsFailure)},
		{"T09", "a caller's cancel is no failure, a deadline is one", onBreaker(cancelIsNoFailure)},
		{"T10", "the state hook may read the breaker", onBreaker(hookReads)},
		{"T11", "a hung probe does not block recovery", onBreaker(hungProbe)},
		{"T12", "the data of a transition event is race-free", onBreaker(eventRace)},
		{"T13", "deadline shorter than the delay: back at once, with both errors", onRetry(deadlineBeforeDelay)},
		{"T14", "already cancelled: no attempt", onRetry(alreadyCancelled)},
		{"T15", "a cancel ends the sleep; no sleep after the last attempt", onRetry(cancelEndsSleep)},
		{"T16", "one policy value serves many callers", onRetry(sharedValue)},
		{"T17", "Retry-After in seconds and as a date", onClient(retryAfterHonoured)},
		{"T18", "HTTP: discarded bodies are closed, POST is not repeated", onClient(discardedBodies)},
		{"T19", "a panic frees the bulkhead's slot, a listener's too", onBulkhead(panicFreesSlot)},
		{"T20", "a cancelled context is never admitted", onBulkhead(cancelledNotAdmitted)},
		{"T21", "abandoned rate waiters return their reservations", onLimiter(abandonedWaiters)},
		{"T22", "a panic of the operation can be recovered by the caller", panicRecoverable},
		{"T23", "an operation that ignores its context can be given up", givenUp},
		{"T24", "deriving twice from one pipeline is independent", deriveTwice},
		{"T25", "a local rejection neither trips the breaker nor is retried", localRejection},
	}
}

func onBreaker(run func(func(circuitSpec) circuit) error) func(*Subject) error {
	return func(s *Subject) error {
		if s.breaker == nil {
			return noBreaker
		}
		return run(s.breaker)
	}
}

func onRetry(run func(func(retrySpec) retrier) error) func(*Subject) error {
	return func(s *Subject) error {
		if s.retry == nil {
			return noRetry
		}
		return run(s.retry)
	}
}

func onClient(run func(func(int, time.Duration) transport) error) func(*Subject) error {
	return func(s *Subject) error {
		if s.client == nil {
			return noClient
		}
		return run(s.client)
	}
}

func onBulkhead(run func(*bulkheads) error) func(*Subject) error {
	return func(s *Subject) error {
		if s.bulkhead == nil {
			return noBulkhead
		}
		return run(s.bulkhead)
	}
}

func onLimiter(run func(func(time.Duration) limiter) error) func(*Subject) error {
	return func(s *Subject) error {
		if s.limiter == nil {
			return noLimiter
		}
		return run(s.limiter)
	}
}

var errBroken = errors.New("broken")

// pause lets real time pass: what is measured here is what a caller would see.
func pause(d time.Duration) { <-time.After(d) }

// eventually waits until ok says yes, and reports whether it did within the limit.
func eventually(limit time.Duration, ok func() bool) bool {
	for start := time.Now(); time.Since(start) < limit; pause(2 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

// caught runs f and returns what it panicked with, or nil.
func caught(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
