// Cache-write-behind counts the views of products: a view is recorded in a journal and returns, and SQLite gets the sums
// later, in batches. What the journal has survives a crash.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/backend/sqlite/sqlitejournal"
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
	db, err := sqlite.Open(filepath.Join(dir, "products.db"), sqlite.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err = db.ExecContext(ctx, `CREATE TABLE views (sku TEXT PRIMARY KEY, n INTEGER NOT NULL)`); err != nil {
		return err
	}
	s := &story{out: out, table: &table{db: db}, journal: filepath.Join(dir, "views.journal")}
	if err := s.firstProcess(ctx); err != nil {
		return err
	}
	return s.nextProcess(ctx)
}

// A story prints what happens and returns what is not as it should be.
type story struct {
	out     io.Writer
	table   *table
	journal string
}

// withViews opens the journal and the cache, as a process does when it starts.
func (s *story) withViews(ctx context.Context, work func(*cache.WriteBehind[string, int]) error) (err error) {
	journal, err := sqlitejournal.Open[string, int](s.journal)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	views, err := cache.OpenWriteBehind(ctx, journal, s.table.views, s.table.write, cache.Config{Name: "views"}, cache.WriteBehindConfig{})
	if err != nil {
		return err
	}
	return work(views)
}

// firstProcess counts, loses the table, counts on, and goes down with what the table has not got.
func (s *story) firstProcess(ctx context.Context) error {
	return s.withViews(ctx, func(views *cache.WriteBehind[string, int]) error {
		err := errors.Join(s.look(ctx, views, 100), views.Flush(ctx))
		stats := views.Stats()
		fmt.Fprintf(s.out, "100 views: %d batches, %d writes for the table, %d were replaced by later ones\n",
			s.table.batches, stats.Written, stats.Coalesced)
		if _, e := s.table.db.ExecContext(ctx, `ALTER TABLE views RENAME TO lost`); e != nil {
			err = errors.Join(err, e)
		}
		err = errors.Join(err, s.look(ctx, views, 50), expect(ctx, views, "tea", 75))
		fmt.Fprintf(s.out, "50 more without the table: no error, and the cache knows them; %d products are pending\n", views.Stats().Pending)

		now, cancel := context.WithCancel(ctx)
		cancel() // no time to wait for the table
		if closed := views.Close(now); !errors.Is(closed, cache.ErrUnwritten) {
			return errors.Join(err, closed, errors.New("closing without the table did not say that something is left"))
		}
		return err
	})
}

// nextProcess finds the table where it was, and the journal.
func (s *story) nextProcess(ctx context.Context) error {
	if _, err := s.table.db.ExecContext(ctx, `ALTER TABLE lost RENAME TO views`); err != nil {
		return err
	}
	return s.withViews(ctx, func(views *cache.WriteBehind[string, int]) error {
		fmt.Fprintf(s.out, "the next process takes over %d writes from the journal\n", views.Stats().Pending)
		soon, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		err := errors.Join(expect(ctx, views, "tea", 75), views.Close(soon))
		tea, e := s.table.views(ctx, "tea")
		mug, e2 := s.table.views(ctx, "mug")
		fmt.Fprintf(s.out, "after its Close the table has %d and %d views\n", tea, mug)
		if tea != 75 || mug != 75 {
			err = errors.Join(err, fmt.Errorf("the table has %d and %d views, want 75 and 75", tea, mug))
		}
		return errors.Join(err, e, e2)
	})
}

// look counts n views of two products, by turns.
func (s *story) look(ctx context.Context, views *cache.WriteBehind[string, int], n int) error {
	for i := range n {
		sku := [...]string{"tea", "mug"}[i%2]
		seen, err := views.Get(ctx, sku)
		if err = errors.Join(err, views.Set(ctx, sku, seen+1)); err != nil {
			return err
		}
	}
	return nil
}

func expect(ctx context.Context, views *cache.WriteBehind[string, int], sku string, want int) error {
	if n, err := views.Get(ctx, sku); n != want || err != nil {
		return fmt.Errorf("the cache has %d views of %s and %w, want %d", n, sku, err, want)
	}
	return nil
}
