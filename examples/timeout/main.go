// Timeout ends calls that take too long, says whose deadline it was, and can leave a function behind that does not listen.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/backstay-go/backstay/timeout"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// pay heeds its context, as every function that waits should.
func pay(ctx context.Context, takes time.Duration) (string, error) {
	select {
	case <-time.After(takes):
		return "paid", nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// count does not heed its context: a library without one, or a computation.
func count(_ context.Context, takes time.Duration) (string, error) {
	<-time.After(takes)
	return "counted", nil
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) error {
	limit := timeout.New(timeout.Config{Name: "bank", After: 100 * time.Millisecond})
	limited := timeout.Wrap(limit, pay)

	answer, err := limited(ctx, 10*time.Millisecond)
	fmt.Fprintf(out, "10 ms of work:             %s\n", answer)
	if err != nil {
		return err
	}

	_, err = limited(ctx, time.Minute)
	fmt.Fprintf(out, "a minute of work:          %s\n", whose(err))
	if !errors.Is(err, timeout.ErrTimeout) {
		return fmt.Errorf("a minute of work: %w", err)
	}

	hurry, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = limited(hurry, time.Minute)
	fmt.Fprintf(out, "the caller has less time:  %s\n", whose(err))
	if errors.Is(err, timeout.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the caller's own deadline: %w", err)
	}

	// Wrap waits for the function, so that nothing runs on unseen. Abandon does not, for functions that do not listen, and counts them.
	start := time.Now()
	_, err = timeout.Abandon(limit, count)(ctx, 400*time.Millisecond)
	fmt.Fprintf(out, "it does not listen:        %s; the caller is back after %v\n", whose(err), time.Since(start).Round(100*time.Millisecond))
	fmt.Fprintf(out, "functions left behind:     %d", limit.Stats().Abandoned)
	for limit.Stats().Abandoned > 0 {
		if _, err := pay(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, ", and in the end %d\n", limit.Stats().Abandoned)
	if n := limit.Stats().TimedOut; n != 2 {
		return fmt.Errorf("%d calls timed out, want 2", n)
	}
	return nil
}

// whose tells the time limit of the call from the deadline of its caller.
func whose(err error) string {
	switch {
	case errors.Is(err, timeout.ErrTimeout):
		return "the limit's time is up"
	case errors.Is(err, context.DeadlineExceeded):
		return "the caller's time is up"
	}
	return fmt.Sprint(err)
}
