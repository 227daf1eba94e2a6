// Pubsub-requestreply asks for prices in another process, by messages: answers, errors that travel back, a caller who
// leaves, and many calls at a time.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
	"github.com/backstay-go/backstay/pubsub/requestreply"
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
	broker := mempubsub.New(mempubsub.Config{})
	theirs, ours := pubsub.New(broker), pubsub.New(broker.Connect())
	defer func() { err = errors.Join(err, ours.Close(), theirs.Close()) }()

	server := requestreply.NewServer(theirs, requestreply.ServerConfig{}, lookUp)
	requests, err := theirs.Open(ctx, pubsub.Subscription{Topic: "prices", Group: "pricing", Concurrency: 16})
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- requests.Run(ctx, server.Handle) }()

	client, err := requestreply.NewClient[request, price](ctx, ours, requestreply.ClientConfig{Topic: "prices"})
	if err != nil {
		return errors.Join(err, requests.Close(), <-served)
	}
	err = errors.Join(ask(ctx, client, out), askAll(ctx, client, out))
	return errors.Join(err, client.Close(), requests.Close(), <-served)
}

type client = requestreply.Client[request, price]

// ask makes a call that is answered, one that fails, and one that takes too long.
func ask(ctx context.Context, c *client, out io.Writer) error {
	tea, err := c.Call(ctx, request{"tea"})
	fmt.Fprintf(out, "tea: %d pence\n", tea.Pence)
	if err != nil || tea.Pence != 300 {
		return fmt.Errorf("the price of tea is %v, %w", tea, err)
	}

	_, err = c.Call(ctx, request{"unicorn"})
	fmt.Fprintln(out, "unicorn:", err)
	if remote, ok := errors.AsType[*requestreply.RemoteError](err); !ok || !remote.Permanent() || remote.NotExecuted {
		return fmt.Errorf("a unicorn: %w", err)
	}

	soon, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = c.Call(soon, request{"slow"})
	fmt.Fprintln(out, "slow:", err)
	if !errors.Is(err, pubsub.ErrInDoubt) {
		return fmt.Errorf("a call that takes too long is not in doubt: %w", err)
	}
	for c.Stats().LateReplies == 0 {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("the late reply did not come")
		}
	}
	fmt.Fprintln(out, "its reply came late and was dropped")
	return nil
}

// askAll makes many calls at once through one client. Each gets its own answer.
func askAll(ctx context.Context, c *client, out io.Writer) error {
	var calls sync.WaitGroup
	wrong := make(chan error, 200)
	for i := range cap(wrong) {
		calls.Go(func() {
			sku := fmt.Sprint("sku-", i)
			if answer, err := c.Call(ctx, request{sku}); err != nil || answer != (price{sku, 100 * len(sku)}) {
				wrong <- fmt.Errorf("%s: %v, %w", sku, answer, err)
			}
		})
	}
	calls.Wait()
	close(wrong)
	fmt.Fprintf(out, "%d calls at once: %d wrong\n", cap(wrong), len(wrong))
	return <-wrong // nil once it is empty
}
