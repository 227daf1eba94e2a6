// Hedge makes a second call when the first one takes long: one slow replica in twenty calls does not show any more, for five calls
// more in a hundred.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/hedge"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// replicas is the service that is called: every twentieth call comes to a replica that is slow.
type replicas struct{ calls, given, cancelled atomic.Int64 }

func (r *replicas) stock(ctx context.Context, sku string) (int, error) {
	takes := 2 * time.Millisecond
	if hedge.Attempt(ctx) == 1 && r.calls.Add(1)%20 == 0 {
		takes = 400 * time.Millisecond
	}
	r.given.Add(1)
	select {
	case <-time.After(takes):
		return len(sku), nil
	case <-ctx.Done(): // the other call was faster
		r.cancelled.Add(1)
		return 0, ctx.Err()
	}
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) error {
	bare, err := ask(ctx, out, "alone", new(replicas).stock)
	if err != nil {
		return err
	}
	// Only what may be done twice is hedged. The budget, a tenth of the calls by default, keeps a service that is slow as a whole
	// from getting twice the calls.
	h := hedge.New(hedge.Config{Name: "stock", After: 50 * time.Millisecond})
	r := &replicas{}
	hedged, err := ask(ctx, out, "hedged", hedge.Wrap(h, r.stock, nil))
	if err != nil {
		return err
	}
	for h.Stats().Running > 0 { // a call that lost may still be on its way out
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	stats := h.Stats()
	fmt.Fprintf(out, "100 questions took %d calls; of %d second calls %d answered, and %d slow ones were cancelled\n",
		r.given.Load(), stats.Hedged, stats.SecondWon, r.cancelled.Load())
	if hedged >= bare || stats.SecondWon == 0 {
		return fmt.Errorf("the slowest took %v, and %v hedged: %+v", bare, hedged, stats)
	}
	return nil
}

// ask asks a hundred times and returns how long the slowest answer took.
func ask(ctx context.Context, out io.Writer, how string, stock func(context.Context, string) (int, error)) (slowest time.Duration, err error) {
	for range 100 {
		start := time.Now()
		if _, err := stock(ctx, "tea"); err != nil {
			return 0, err
		}
		slowest = max(slowest, time.Since(start))
	}
	fmt.Fprintf(out, "%-7s the slowest of 100 answers took %3d ms\n", how+":", slowest.Milliseconds())
	return slowest, nil
}
