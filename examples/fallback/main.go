// Fallback answers with yesterday's price when today's cannot be had, with the list price when there is none of yesterday, and always
// tells the caller that the answer is second best, and why.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/backstay-go/backstay/fallback"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var (
	errOutage  = errors.New("the supplier does not answer")
	errUnknown = errors.New("there is no such product")
)

// supplier is the function that is asked first. It knows nothing of fallbacks.
func supplier(_ context.Context, sku string) (string, error) {
	switch sku {
	case "tea":
		return "£2.55", nil
	case "unicorn":
		return "", errUnknown
	}
	return "", errOutage
}

// yesterday remembers the price of mugs, and of nothing else.
func yesterday(_ context.Context, sku string, _ error) (string, error) {
	if sku != "mug" {
		return "", errors.New("no price of yesterday")
	}
	return "£8.90", nil
}

func listPrice(_ context.Context, sku string, _ error) (string, error) {
	if sku == "jam" {
		return "£4.00", nil
	}
	return "", errors.New("not on the list")
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) error {
	isOutage := func(err error) bool { return errors.Is(err, errOutage) }
	f := fallback.New(fallback.Config{Name: "price"})
	// The alternatives are asked in their order, and only after an outage: that there is no unicorn is an answer.
	price := fallback.Wrap(f, supplier, fallback.Only(isOutage, yesterday), fallback.Only(isOutage, listPrice))

	degraded := 0
	for _, sku := range []string{"tea", "mug", "jam", "unicorn", "yacht"} {
		observed, seen := fallback.Observe(ctx)
		answer, err := price(observed, sku)
		var failed *fallback.Error
		switch {
		case errors.As(err, &failed):
			fmt.Fprintf(out, "%-8s no price: %v, and %d alternatives have none\n", sku, failed.Err, len(failed.Alternatives))
		case err != nil:
			fmt.Fprintf(out, "%-8s no price: %v\n", sku, err)
		case seen.Degraded():
			degraded++
			fmt.Fprintf(out, "%-8s %s, second best: %v\n", sku, answer, seen.Cause())
		default:
			fmt.Fprintf(out, "%-8s %s\n", sku, answer)
		}
		if sku == "yacht" && !errors.Is(err, errOutage) {
			return fmt.Errorf("the first cause of the failure is lost: %w", err)
		}
	}
	stats := f.Stats()
	fmt.Fprintf(out, "%d answers were second best, %d call had none\n", stats.Used, stats.Failed)
	if degraded != 2 || stats.Used != 2 || stats.Failed != 1 {
		return fmt.Errorf("%d answers were second best, and the fallback counts %+v", degraded, stats)
	}
	return nil
}
