// Cache-read-through keeps the prices of a SQLite table in memory: the cache asks the table, once for all who miss.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/backstay-go/backstay/cache"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "cache-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	source, err := openShelf(ctx, filepath.Join(dir, "products.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.db.Close()) }()

	prices := cache.New(source.price, cache.Config{Name: "prices", TTL: time.Minute, NegativeTTL: 10 * time.Second})
	defer func() { err = errors.Join(err, prices.Close()) }()
	s := &story{out: out, source: source, prices: prices}

	s.crowd(ctx, "tea", 100)
	s.ask(ctx, "again, from memory", "tea", "£2.50", 0)
	s.ask(ctx, "a product that is not sold", "gin", "none", 1)
	s.ask(ctx, "the same: that is remembered", "gin", "none", 0)

	// Who writes to the source deletes the entry, after the commit.
	if err := errors.Join(source.setPrice(ctx, "tea", 275), prices.Delete(ctx, "tea")); err != nil {
		return err
	}
	s.ask(ctx, "after a change of price", "tea", "£2.75", 1)

	if err := source.breakDown(ctx); err != nil {
		return err
	}
	s.ask(ctx, "the table is gone; in memory", "tea", "£2.75", 0)
	s.ask(ctx, "the table is gone; not in memory", "mug", "failure", 1)
	s.ask(ctx, "a failure is not kept", "mug", "failure", 1)

	stats := prices.Stats()
	fmt.Fprintf(out, "\n%d hits, %d misses, %d loads of which %d failed, %d times \"there is none\" from memory.\n",
		stats.Hits, stats.Misses, stats.Loads, stats.LoadFailures, stats.NegativeHits)
	return s.wrong
}

// A story prints a line for each thing that is asked and notes what is not as it should be.
type story struct {
	out    io.Writer
	source *shelf
	prices *cache.Cache[string, int]
	wrong  error
}

func (s *story) ask(ctx context.Context, what, sku, want string, wantAsked int64) {
	before := s.source.asked.Load()
	pence, err := s.prices.Get(ctx, sku)
	s.tell(what, shown(pence, err), want, s.source.asked.Load()-before, wantAsked)
}

// crowd has n callers ask at once, each with a context of its own.
func (s *story) crowd(ctx context.Context, sku string, n int) {
	before := s.source.asked.Load()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			_, _ = s.prices.Get(ctx, sku) // the next one to ask tells what came of it
		})
	}
	wg.Wait()
	pence, err := s.prices.Get(ctx, sku)
	s.tell(fmt.Sprintf("%d callers at once", n), shown(pence, err), "£2.50", s.source.asked.Load()-before, 1)
}

func (s *story) tell(what, answer, want string, asked, wantAsked int64) {
	fmt.Fprintf(s.out, "%-34s %-8s queries: %d\n", what, answer, asked)
	if answer != want || asked != wantAsked {
		s.wrong = errors.Join(s.wrong, fmt.Errorf("%s: %s and %d queries, want %s and %d", what, answer, asked, want, wantAsked))
	}
}

func shown(pence int, err error) string {
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return "none"
	case err != nil:
		return "failure"
	}
	return fmt.Sprintf("£%d.%02d", pence/100, pence%100)
}
