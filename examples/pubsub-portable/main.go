// Pubsub-portable handles the changes of each account in order, repeats what fails and puts aside what cannot succeed: one
// program on five brokers, which the URL chooses. See README.md.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

func main() {
	broker := flag.String("broker", "mem:", "the `URL` of the broker: mem:, nats://…, amqp://…, redis://… or kafka://…")
	prefix := flag.String("prefix", "portable", "begins the `name` of everything that is made at the broker")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, *broker, *prefix); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var (
	accounts = []string{"anna", "ben", "cleo"}
	changes  = []string{"open", "deposit", "withdraw", "close"}
)

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer, broker, prefix string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	driver, err := open(ctx, broker, prefix)
	if err != nil {
		return err
	}
	bus := pubsub.New(driver)
	defer func() { err = errors.Join(err, bus.Close()) }()
	can := bus.Capabilities()
	fmt.Fprintf(out, "broker:  %s\nkept:    %s\nreplay:  %t\n", can.Driver, can.Durability, can.ReplayFromStart)
	b := &book{run: rand.Text(), entries: map[string][]string{}, missing: len(accounts)*len(changes) + 1}
	if err := b.keep(ctx, bus); err != nil {
		return err
	}
	for _, account := range accounts {
		fmt.Fprintf(out, "%-8s %s\n", account+":", strings.Join(b.entries[account], ", "))
		want := slices.Clone(changes)
		if account == "ben" {
			want[1] += " (attempt 3)"
		}
		if !slices.Equal(b.entries[account], want) {
			return fmt.Errorf("%s: %q, want %q", account, b.entries[account], want)
		}
	}
	letter, err := b.readLetter(ctx, bus, can.ReplayFromStart)
	fmt.Fprintln(out, letter)
	return err
}

// A book notes what was handled. On a broker that keeps messages there may be some of a run that was interrupted: they are
// not its own.
type book struct {
	run     string
	mu      sync.Mutex
	entries map[string][]string // by account
	missing int
	full    context.CancelFunc
}

// keep publishes every change of every account by turns, and something that is no change, and handles it all.
func (b *book) keep(ctx context.Context, bus *pubsub.Bus) error {
	ledger, err := bus.Open(ctx, pubsub.Subscription{Topic: "accounts", Group: "ledger", Ordered: true})
	if err != nil {
		return err
	}
	msgs := []pubsub.Message{b.message("dora", "gibberish")}
	for _, change := range changes {
		for _, account := range accounts {
			msgs = append(msgs, b.message(account, change))
		}
	}
	if err := bus.Publish(ctx, msgs...); err != nil {
		return err
	}
	ctx, b.full = context.WithCancel(ctx)
	return ledger.Run(ctx, b.enter)
}

func (b *book) message(account, change string) pubsub.Message {
	return pubsub.Message{Topic: "accounts", Key: account, Payload: []byte(change), Header: pubsub.Header{"run": b.run}}
}

// enter is the handler. The first two attempts at ben's deposit fail.
func (b *book) enter(_ context.Context, m pubsub.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	change := string(m.Payload)
	switch {
	case m.Header["run"] != b.run:
		return nil
	case m.Key == "ben" && change == "deposit" && m.Attempt < 3:
		return errors.New("the bank is away")
	case m.Attempt > 1:
		change += fmt.Sprintf(" (attempt %d)", m.Attempt)
	}
	if b.missing--; b.missing == 0 {
		b.full()
	}
	if !slices.Contains(changes, string(m.Payload)) {
		return pubsub.DeadLetter(errors.New("not a change of an account"))
	}
	b.entries[m.Key] = append(b.entries[m.Key], change)
	return nil
}

// readLetter waits for what was put aside. A broker that cannot replay has kept it for the first group that asks.
func (b *book) readLetter(ctx context.Context, bus *pubsub.Bus, replay bool) (letter string, err error) {
	s := pubsub.Subscription{Topic: pubsub.DeadLetterTopic("accounts", "ledger"), Group: "clerk"}
	if replay {
		s.Start = "start"
	}
	clerk, err := bus.Open(ctx, s)
	if err != nil {
		return "", err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	err = clerk.Run(ctx, func(_ context.Context, m pubsub.Message) error {
		if m.Header["run"] == b.run {
			letter = fmt.Sprintf("aside:   %s of %s: %s", m.Payload, m.Key, m.Header[pubsub.HeaderLastError])
			stop()
		}
		return nil
	})
	if letter == "" && err == nil {
		err = errors.New("the dead letter did not come")
	}
	return letter, err
}
