// Package resilience puts libraries through 25 behavioural cases, T01 to T25: what a circuit breaker, a retrier, a bulkhead, a rate
// limit, a timeout and an HTTP client have to do when things go wrong.
package resilience

import (
	"errors"
	"time"

	"github.com/backstay-go/backstay/bench/cases"
)

// Suite returns the cases and the libraries.
func Suite() *cases.Suite {
	return cases.Definition[*subject]{
		Area:      "resilience",
		Cases:     all(),
		Subjects:  []*subject{ours(), failsafeGo(), goBreaker(), sethvargoRetry(), avastRetry(), backoffV4(), xSync(), xTime()},
		Deadline:  15 * time.Second, // the longest takes three seconds where everything goes well
		Earlier:   earlier,
		Explained: explained,
	}.Suite()
}

// subject is a library under test. What it does not offer is nil, and the cases about it do not apply.
type subject struct {
	cases.Subject

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

const (
	noBreaker  = cases.Lack("has no breaker")
	noRetry    = cases.Lack("has no retry")
	noClient   = cases.Lack("has no HTTP client")
	noBulkhead = cases.Lack("has no bulkhead")
	noLimiter  = cases.Lack("has no rate limit")
	noTimeout  = cases.Lack("has no timeout or hedge that runs operations")
	noCompose  = cases.Lack("does not compose policies")
)

func all() []cases.Case[*subject] {
	return []cases.Case[*subject]{
		{ID: "T01", Title: "half-open admits exactly 3 of 30", Run: onBreaker(halfOpenAdmitsExactly)},
		{ID: "T02", Title: "late completions neither change state nor free probe slots", Run: onBreaker(lateCompletions)},
		{ID: "T03", Title: "a late success does not close", Run: onBreaker(lateSuccess)},
		{ID: "T04", Title: "the sliding window catches failures across an edge, and forgets", Run: onBreaker(slidingWindow)},
		{ID: "T05", Title: "failures slower than the window count", Run: onBreaker(slowFailures)},
		{ID: "T06", Title: "a panic in a probe frees its slot", Run: onBreaker(panickingProbe)},
		{ID: "T07", Title: "Goexit in a probe frees its slot", Run: onBreaker(exitingProbe)},
		{ID: "T08", Title: "a panic counts as a failure", Run: onBreaker(panicIsFailure)},
		{ID: "T09", Title: "a caller's cancel is no failure, a deadline is one", Run: onBreaker(cancelIsNoFailure)},
		{ID: "T10", Title: "the state hook may read the breaker", Run: onBreaker(hookReads)},
		{ID: "T11", Title: "a hung probe does not block recovery", Run: onBreaker(hungProbe)},
		{ID: "T12", Title: "the data of a transition event is race-free", Run: onBreaker(eventRace)},
		{ID: "T13", Title: "deadline shorter than the delay: back at once, with both errors", Run: onRetry(deadlineBeforeDelay)},
		{ID: "T14", Title: "already cancelled: no attempt", Run: onRetry(alreadyCancelled)},
		{ID: "T15", Title: "a cancel ends the sleep; no sleep after the last attempt", Run: onRetry(cancelEndsSleep)},
		{ID: "T16", Title: "one policy value serves many callers", Run: onRetry(sharedValue)},
		{ID: "T17", Title: "Retry-After in seconds and as a date", Run: onClient(retryAfterHonoured)},
		{ID: "T18", Title: "HTTP: discarded bodies are closed, POST is not repeated", Run: onClient(discardedBodies)},
		{ID: "T19", Title: "a panic frees the bulkhead's slot, a listener's too", Run: onBulkhead(panicFreesSlot)},
		{ID: "T20", Title: "a cancelled context is never admitted", Run: onBulkhead(cancelledNotAdmitted)},
		{ID: "T21", Title: "abandoned rate waiters return their reservations", Run: onLimiter(abandonedWaiters)},
		{ID: "T22", Title: "a panic of the operation can be recovered by the caller", Run: panicRecoverable},
		{ID: "T23", Title: "an operation that ignores its context can be given up", Run: givenUp},
		{ID: "T24", Title: "deriving twice from one pipeline is independent", Run: deriveTwice},
		{ID: "T25", Title: "a local rejection neither trips the breaker nor is retried", Run: localRejection},
	}
}

func onBreaker(run func(func(circuitSpec) circuit) error) func(*subject) error {
	return func(s *subject) error {
		if s.breaker == nil {
			return noBreaker
		}
		return run(s.breaker)
	}
}

func onRetry(run func(func(retrySpec) retrier) error) func(*subject) error {
	return func(s *subject) error {
		if s.retry == nil {
			return noRetry
		}
		return run(s.retry)
	}
}

func onClient(run func(func(int, time.Duration) transport) error) func(*subject) error {
	return func(s *subject) error {
		if s.client == nil {
			return noClient
		}
		return run(s.client)
	}
}

func onBulkhead(run func(*bulkheads) error) func(*subject) error {
	return func(s *subject) error {
		if s.bulkhead == nil {
			return noBulkhead
		}
		return run(s.bulkhead)
	}
}

func onLimiter(run func(func(time.Duration) limiter) error) func(*subject) error {
	return func(s *subject) error {
		if s.limiter == nil {
			return noLimiter
		}
		return run(s.limiter)
	}
}

var errBroken = errors.New("broken")
