// Pubsub-ordered handles the changes of each account in order, also when one of them fails: its account waits, the others
// go on.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var (
	accounts = []string{"anna", "ben", "cleo"}
	changes  = []string{"open", "deposit", "withdraw", "close"}
)

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	defer func() { err = errors.Join(err, bus.Close()) }()
	ledger, err := bus.Open(ctx, pubsub.Subscription{Topic: "accounts", Group: "ledger", Ordered: true})
	if err != nil {
		return err
	}
	for _, change := range changes { // of all accounts by turns
		for _, account := range accounts {
			m := pubsub.Message{Topic: "accounts", Key: account, Payload: []byte(change)}
			if err := bus.Publish(ctx, m); err != nil {
				return err
			}
		}
	}
	b := &book{out: out, missing: len(accounts) * len(changes)}
	ctx, b.complete = context.WithCancel(ctx)
	if err := ledger.Run(ctx, b.enter); err != nil {
		return err
	}
	return b.check()
}

// A book notes what was handled, in that order.
type book struct {
	out      io.Writer
	mu       sync.Mutex
	entries  []string
	missing  int
	complete context.CancelFunc
}

// enter is the handler. The deposit of ben fails twice; RetryAfter asks for more time than the others take.
func (b *book) enter(_ context.Context, m pubsub.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	entry := m.Key + ": " + string(m.Payload)
	if entry == "ben: deposit" && m.Attempt < 3 {
		fmt.Fprintf(b.out, "%s fails, attempt %d\n", entry, m.Attempt)
		return pubsub.RetryAfter(200*time.Millisecond, errors.New("the bank is away"))
	}
	fmt.Fprintln(b.out, entry)
	b.entries = append(b.entries, entry)
	if b.missing--; b.missing == 0 {
		b.complete()
	}
	return nil
}

// check looks for the order of each account, and that nobody waited for ben.
func (b *book) check() error {
	for _, account := range accounts {
		var entries, want []string
		for _, e := range b.entries {
			if e[:len(account)] == account {
				entries = append(entries, e)
			}
		}
		for _, change := range changes {
			want = append(want, account+": "+change)
		}
		if !slices.Equal(entries, want) {
			return fmt.Errorf("out of order: %q", entries)
		}
	}
	for _, last := range []string{"anna: close", "cleo: close"} {
		if slices.Index(b.entries, last) > slices.Index(b.entries, "ben: deposit") {
			return fmt.Errorf("%q had to wait for ben", last)
		}
	}
	fmt.Fprintln(b.out, "each account in order, and nobody waited for ben")
	return nil
}
