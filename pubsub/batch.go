package pubsub

import (
	"context"
	"fmt"
)

// BatchHandler handles several messages at once: 1 to BatchSize of them, in an ordered subscription at most one of each
// key. Its result is the verdict for all, as that of a Handler is for one, unless it is BatchErrors. The slice is the
// handler's; what was said of a Handler's concurrency and context goes for it, HandleTimeout bounding the whole batch.
type BatchHandler = func(ctx context.Context, msgs []Message) error

// BatchErrors is the result of a BatchHandler that has a verdict for each message: one entry per message, in order, nil
// for those that were handled. RetryAfter and DeadLetter go on the entries. It is recognised only as the returned error
// itself: wrapped or joined with another it is the error of all messages, as it is with any other number of entries.
type BatchErrors []error

// Error gives the count and the first failure.
func (e BatchErrors) Error() string {
	var first error
	failed := 0
	for _, err := range e {
		if err == nil {
			continue
		}
		if failed++; failed == 1 {
			first = err
		}
	}
	if failed == 0 {
		return fmt.Sprintf("pubsub: 0 of %d messages failed", len(e))
	}
	return fmt.Sprintf("pubsub: %d of %d messages failed, first: %v", failed, len(e), first)
}

// Unwrap returns the failures.
func (e BatchErrors) Unwrap() []error {
	var errs []error
	for _, err := range e {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}
