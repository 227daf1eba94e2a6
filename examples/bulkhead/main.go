// Bulkhead keeps a slow printer from tying up the whole service: two labels are printed at a time, two callers wait, and the others
// are told at once, so that they can do something else. A set of them gives each customer slots of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/bulkhead"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// printer is what is slow. It knows nothing of bulkheads.
type printer struct{ now, most atomic.Int64 }

func (p *printer) print(ctx context.Context, customer string) (string, error) {
	n := p.now.Add(1)
	defer p.now.Add(-1)
	for most := p.most.Load(); n > most && !p.most.CompareAndSwap(most, n); most = p.most.Load() {
	}
	select {
	case <-time.After(100 * time.Millisecond):
		return "a label for " + customer, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) error {
	slots := bulkhead.New(bulkhead.Config{Name: "printer", MaxConcurrent: 2, MaxQueue: 2, QueueTimeout: time.Second})
	p := &printer{}
	printed, full := crowd(ctx, bulkhead.Wrap(slots, p.print), map[string]int{"anna": 10})
	fmt.Fprintf(out, "10 callers at once: %d labels, %d callers were told %q\n", printed["anna"], full["anna"], bulkhead.ErrFull)
	fmt.Fprintf(out, "at most %d labels were printed at a time\n", p.most.Load())
	if printed["anna"] != 4 || full["anna"] != 6 || p.most.Load() != 2 {
		return fmt.Errorf("%d labels, %d refused, %d at a time", printed["anna"], full["anna"], p.most.Load())
	}

	// One customer who asks too much takes nothing from another.
	each := bulkhead.NewSet[string](bulkhead.SetConfig{Name: "printer", Each: bulkhead.Config{MaxConcurrent: 2}})
	customer := func(name string) string { return name }
	printed, full = crowd(ctx, bulkhead.WrapBy(each, customer, p.print), map[string]int{"anna": 10, "ben": 2})
	fmt.Fprintf(out, "slots for each customer: anna got %d of 10, ben got %d of 2\n", printed["anna"], printed["ben"])
	if printed["anna"] != 2 || printed["ben"] != 2 || full["ben"] != 0 {
		return fmt.Errorf("printed %v, refused %v", printed, full)
	}
	return nil
}

// crowd has so many callers ask at once for each customer, and counts who got a label and who found no slot.
func crowd(ctx context.Context, label func(context.Context, string) (string, error), callers map[string]int) (printed, full map[string]int) {
	printed, full = map[string]int{}, map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for customer, n := range callers {
		for range n {
			wg.Go(func() {
				_, err := label(ctx, customer)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					printed[customer]++
				case errors.Is(err, bulkhead.ErrFull): // nothing was sent to the printer
					full[customer]++
				}
			})
		}
	}
	wg.Wait()
	return printed, full
}
