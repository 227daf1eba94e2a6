// Ratelimit keeps to what a partner allows, twenty calls a second: callers are refused and told when to come back, or wait for their
// turn, and each customer may have a rate of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/backstay-go/backstay/ratelimit"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// send is what is limited. It knows nothing of limits.
func send(_ context.Context, customer string) (string, error) { return "sent for " + customer, nil }

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) error {
	return errors.Join(refuse(ctx, out), queue(ctx, out), each(ctx, out))
}

// refuse sends five times at once where three may go at the same moment.
func refuse(ctx context.Context, out io.Writer) error {
	limited := ratelimit.Wrap(ratelimit.New(ratelimit.Config{Name: "partner", Rate: 20, Burst: 3}), send)
	sent := 0
	for range 5 {
		_, err := limited(ctx, "anna")
		if rejected, ok := errors.AsType[*ratelimit.Error](err); ok { // nothing was sent
			fmt.Fprintf(out, "refused: come back in %v\n", rejected.RetryAfter().Round(10*time.Millisecond))
			continue
		}
		sent++
	}
	fmt.Fprintf(out, "%d of 5 were sent at once\n", sent)
	if sent != 3 {
		return fmt.Errorf("%d were sent at once, want 3", sent)
	}
	return nil
}

// queue sends six times from as many callers, who wait up to a second for their turn.
func queue(ctx context.Context, out io.Writer) error {
	l := ratelimit.New(ratelimit.Config{Name: "partner", Rate: 20, Burst: 1, MaxWait: time.Second})
	limited := ratelimit.Wrap(l, send)
	start, failed := time.Now(), make(chan error, 6)
	var callers sync.WaitGroup
	for range cap(failed) {
		callers.Go(func() {
			_, err := limited(ctx, "anna")
			failed <- err
		})
	}
	callers.Wait()
	took := time.Since(start)
	fmt.Fprintf(out, "6 callers who wait were all sent in %d ms, %d of them from the queue\n", took.Milliseconds(), l.Stats().Queued)
	var err error
	for range cap(failed) {
		err = errors.Join(err, <-failed)
	}
	if took < 240*time.Millisecond {
		err = errors.Join(err, fmt.Errorf("5 turns of 50 ms took %v", took))
	}
	return err
}

// each gives every customer a rate of its own.
func each(ctx context.Context, out io.Writer) error {
	customers := ratelimit.NewSet[string](ratelimit.SetConfig{Name: "customers", Each: ratelimit.Config{Rate: 1, Burst: 2}})
	limited := ratelimit.WrapBy(customers, func(name string) string { return name }, send)
	sent := map[string]int{}
	for _, name := range []string{"anna", "anna", "anna", "anna", "ben"} {
		if _, err := limited(ctx, name); err == nil {
			sent[name]++
		}
	}
	fmt.Fprintf(out, "a rate for each customer: anna sent %d of 4, ben %d of 1\n", sent["anna"], sent["ben"])
	if sent["anna"] != 2 || sent["ben"] != 1 {
		return fmt.Errorf("sent %v", sent)
	}
	return nil
}
