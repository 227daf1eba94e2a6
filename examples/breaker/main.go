// Breaker stops calling a bank that keeps failing, asks it again after a while with one call, and goes back to work when that succeeds.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/backstay-go/backstay/breaker"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// bank is the service that is called. It knows nothing of breakers.
type bank struct {
	down  bool
	calls int
}

var errDown = errors.New("connection refused")

func (b *bank) charge(_ context.Context, order string) (string, error) {
	b.calls++
	if b.down {
		return "", errDown
	}
	return "receipt for " + order, nil
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) error {
	guard := breaker.New(breaker.Config{
		Name:                "bank",
		ConsecutiveFailures: 3,                      // by default a ratio of the latest 100 calls decides
		OpenDelay:           200 * time.Millisecond, // nobody calls the bank for so long,
		Probes:              1,                      // and then one call has to succeed
		MaxOpenDelay:        -1,                     // by default the delay grows while probes fail
	}, breaker.OnStateChange(func(t breaker.Transition) {
		fmt.Fprintf(out, "              %v -> %v\n", t.From, t.To)
	}))
	b := &bank{}
	charge := breaker.Wrap(guard, b.charge)
	pay := func(n int) {
		for range n {
			receipt, err := charge(ctx, "tea")
			fmt.Fprintln(out, told(receipt, err))
		}
	}

	pay(1)
	b.down = true
	fmt.Fprintln(out, "the bank goes down")
	pay(5)
	for _, down := range []bool{true, false} {
		b.down = down
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		fmt.Fprintf(out, "after 200 ms, with the bank %s\n", map[bool]string{true: "still down", false: "up again"}[down])
		pay(2)
	}
	stats := guard.Stats()
	fmt.Fprintf(out, "10 payments were asked for; the bank was called %d times and spared %d\n", b.calls, stats.Rejected)
	if b.calls != 7 || stats.Rejected != 3 || stats.Opened != 2 {
		return fmt.Errorf("the bank was called %d times, want 7; the breaker says %+v", b.calls, stats)
	}
	return nil
}

// told says what the caller got. A rejection means that the bank was not called, so nobody needs to ask it what came of the payment.
func told(receipt string, err error) string {
	var rejected *breaker.Error
	switch {
	case err == nil:
		return "paid:         " + receipt
	case errors.As(err, &rejected):
		return fmt.Sprintf("not called:   come back in %v", rejected.RetryAfter().Round(10*time.Millisecond))
	default:
		return fmt.Sprintf("failed:       %v", err)
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
