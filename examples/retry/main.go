// Retry calls a shaky supplier again where that can help, does not where it cannot, and, while the supplier is down, keeps within a
// budget that all callers share.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/backstay-go/backstay/retry"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// supplier is the service that is called. It knows nothing of retries.
type supplier struct {
	failures int // how many of the next calls fail
	calls    int
}

var errBusy = errors.New("the supplier is busy")

func (s *supplier) order(_ context.Context, what string) (string, error) {
	s.calls++
	switch {
	case what == "unicorn":
		return "", retry.Permanent(errors.New("not for sale")) // to ask again is no use
	case s.failures > 0:
		s.failures--
		return "", errBusy
	}
	return what + " is on its way", nil
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) error {
	// A budget is paid into by calls that succeed. Without one, every caller of a service that is down calls it three times.
	budget := retry.NewBudget(retry.BudgetConfig{Name: "supplier", Burst: 10, MinPerSecond: -1})
	retrier := retry.New(retry.Config{Name: "supplier", MaxAttempts: 3, InitialInterval: 20 * time.Millisecond, Jitter: -1},
		retry.WithBudget(budget),
		retry.OnRetry(func(e retry.Event) {
			if budget.Stats().Spent <= 2 { // those of the outage would be too many to tell
				fmt.Fprintf(out, "  attempt %d: %v; the next one in %v\n", e.Attempt, e.Err, e.Delay)
			}
		}))
	s := &supplier{failures: 2}
	order := retry.Wrap(retrier, s.order)

	answer, err := order(ctx, "tea")
	fmt.Fprintf(out, "tea: %s, after %d calls\n", answer, s.calls)
	if err != nil || s.calls != 3 {
		return fmt.Errorf("tea: %d calls, %w", s.calls, err)
	}

	_, err = order(ctx, "unicorn")
	fmt.Fprintf(out, "unicorn: %v, after %d call\n", err, s.calls-3)
	if s.calls != 4 {
		return fmt.Errorf("a unicorn was ordered %d times", s.calls-3)
	}

	// The delay would outlast the caller, who is told at once.
	soon, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	s.failures = 1
	_, err = order(soon, "jam")
	fmt.Fprintf(out, "jam, wanted within 10 ms: %v\n", err)
	if !errors.Is(err, retry.ErrExhausted) || !errors.Is(err, errBusy) {
		return fmt.Errorf("jam: %w", err)
	}
	return outage(ctx, out, s, order, budget)
}

// outage orders a hundred times while nothing works. Three attempts each would be three hundred calls.
func outage(ctx context.Context, out io.Writer, s *supplier, order func(context.Context, string) (string, error), budget *retry.Budget) error {
	s.calls, s.failures = 0, 1000
	refused := 0
	for range 100 {
		if _, err := order(ctx, "mug"); errors.Is(err, retry.ErrBudget) {
			refused++
		}
	}
	fmt.Fprintf(out, "100 orders while the supplier is down: %d calls instead of 300, %d orders were not tried again\n", s.calls, refused)
	if s.calls > 115 || refused < 90 {
		return fmt.Errorf("%d calls and %d without a budget: %+v", s.calls, refused, budget.Stats())
	}
	return nil
}
