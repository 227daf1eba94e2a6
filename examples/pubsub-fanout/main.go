// Pubsub-fanout publishes orders to two groups: each group gets every order, and the members of one group share them.
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
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const orders = 30

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	defer func() { err = errors.Join(err, bus.Close()) }()

	t := &tally{handled: map[string]map[string]int{}, missing: 2 * orders, complete: make(chan struct{})}
	var members sync.WaitGroup
	failed := make(chan error, 3)
	for _, member := range []struct{ group, name string }{{"billing", "anna"}, {"billing", "ben"}, {"mail", "cleo"}} {
		// Once Open has returned, the group misses nothing, even if its members are away.
		c, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders.placed", Group: member.group, Concurrency: 2})
		if err != nil {
			return err
		}
		members.Go(func() { failed <- c.Run(ctx, t.handler(member.group, member.name)) })
	}
	for i := range orders {
		if err := bus.Publish(ctx, pubsub.Message{ID: fmt.Sprintf("order-%02d", i), Topic: "orders.placed"}); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%d orders are published\n", orders)
	select {
	case <-t.complete:
	case <-ctx.Done():
	}
	err = bus.Close() // drains: what runs is finished and settled, then Run returns nil
	members.Wait()
	for range cap(failed) {
		err = errors.Join(err, <-failed)
	}
	return errors.Join(err, t.report(out))
}

// A tally counts how often each member has handled each order.
type tally struct {
	mu       sync.Mutex
	handled  map[string]map[string]int // by "group/member" and order
	missing  int
	complete chan struct{} // closed when each group has handled as much as there is
}

func (t *tally) handler(group, member string) pubsub.Handler {
	return func(ctx context.Context, m pubsub.Message) error {
		select {
		case <-time.After(5 * time.Millisecond): // the work
		case <-ctx.Done():
			return ctx.Err()
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		who := group + "/" + member
		if t.handled[who] == nil {
			t.handled[who] = map[string]int{}
		}
		t.handled[who][m.ID]++
		if t.missing--; t.missing == 0 {
			close(t.complete)
		}
		return nil
	}
}

// report says who did how much. Without a crash or a lost lease, nothing is handled twice in a group.
func (t *tally) report(out io.Writer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	anna, ben, mail := t.handled["billing/anna"], t.handled["billing/ben"], t.handled["mail/cleo"]
	fmt.Fprintf(out, "billing: anna handled %d orders, ben %d\nmail:    cleo handled %d\n", len(anna), len(ben), len(mail))
	if len(anna) == 0 || len(ben) == 0 {
		return errors.New("a member of billing had nothing to do")
	}
	for i := range orders {
		id := fmt.Sprintf("order-%02d", i)
		if anna[id]+ben[id] != 1 || mail[id] != 1 {
			return fmt.Errorf("%s was billed %d times and mailed %d times", id, anna[id]+ben[id], mail[id])
		}
	}
	fmt.Fprintln(out, "each order was billed once and mailed once")
	return nil
}
