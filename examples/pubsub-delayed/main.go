// Pubsub-delayed publishes reminders that the broker holds back until they are due, also when it is started again
// meanwhile.
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
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "pubsub-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &diary{out: out, begun: time.Now(), due: map[string]time.Time{}}
	if err := withBus(ctx, dir, d.publish); err != nil {
		return err
	}
	fmt.Fprintln(out, "the broker is started again")
	if err := withBus(ctx, dir, d.sendAll); err != nil {
		return err
	}
	if want := []string{"welcome", "rate the tea", "pay the invoice"}; !slices.Equal(d.sent, want) {
		return fmt.Errorf("sent %q, want %q", d.sent, want)
	}
	return d.wrong
}

// A diary knows what is due when, and notes what was sent, and what was sent too early.
type diary struct {
	out   io.Writer
	begun time.Time
	due   map[string]time.Time
	mu    sync.Mutex
	sent  []string
	wrong error
	stop  context.CancelFunc
}

// publish hands over all reminders at once. A time that is past means now.
func (d *diary) publish(ctx context.Context, bus *pubsub.Bus) error {
	var msgs []pubsub.Message
	for text, after := range map[string]time.Duration{"pay the invoice": 4 * time.Second, "rate the tea": 2 * time.Second, "welcome": -time.Hour} {
		d.due[text] = d.begun.Add(after)
		msgs = append(msgs, pubsub.Message{Topic: "reminders", Payload: []byte(text), DeliverAt: d.due[text]})
	}
	fmt.Fprintf(d.out, "%d reminders are published\n", len(msgs))
	return bus.Publish(ctx, msgs...)
}

func (d *diary) sendAll(ctx context.Context, bus *pubsub.Bus) error {
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "reminders", Group: "mail", Start: "start", Concurrency: 1})
	if err != nil {
		return err
	}
	ctx, d.stop = context.WithCancel(ctx)
	return c.Run(ctx, d.send)
}

// send is the handler.
func (d *diary) send(_ context.Context, m pubsub.Message) error {
	now, text := time.Now(), string(m.Payload)
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.out, "after %.1f s: %s\n", now.Sub(d.begun).Seconds(), text)
	if early := d.due[text].Sub(now); early > 0 {
		d.wrong = errors.Join(d.wrong, fmt.Errorf("%q came %s too early", text, early))
	}
	if d.sent = append(d.sent, text); len(d.sent) == len(d.due) {
		d.stop()
	}
	return nil
}
