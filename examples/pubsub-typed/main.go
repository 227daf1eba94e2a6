// Pubsub-typed publishes values of a Go type and handles values of that type. A message of another version of the schema
// is refused, and the trace of the request that published goes to the handler.
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
	"github.com/backstay-go/backstay/pubsub/tracecontext"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type orderV1 struct {
	Order string `json:"order"`
	Price string `json:"price"` // such as "£4.20"
}

type orderV2 struct {
	Order string `json:"order"`
	Pence int    `json:"pence"`
}

// Publisher and consumer share these. The price has changed its meaning, so the version says which one is meant.
var (
	placedV1 = pubsub.JSON("orders.placed", func(o orderV1) string { return o.Order }).Version("1")
	placedV2 = pubsub.JSON("orders.placed", func(o orderV2) string { return o.Order }).Version("2")
)

const incoming = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" // the header of an HTTP request, say

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s := &story{out: out}
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}), pubsub.OnDeadLetter(s.refused))
	defer func() { err = errors.Join(err, bus.Close()) }()
	billing, err := bus.Open(ctx, pubsub.Subscription{Topic: placedV2.Name(), Group: "billing"})
	if err != nil {
		return err
	}
	trace, err := tracecontext.Parse(incoming, "")
	if err != nil {
		return err
	}
	request := tracecontext.NewContext(ctx, trace)
	publisher := tracecontext.Publisher(bus) // writes the trace of its context into the headers
	if err := errors.Join(
		placedV2.Publish(request, publisher, orderV2{"o-1", 420}),
		placedV1.Publish(request, publisher, orderV1{"o-2", "£4.20"}), // by a service that was not updated yet
		placedV2.Publish(ctx, publisher, orderV2{"o-3", 99}),
	); err != nil {
		return err
	}
	ctx, s.stop = context.WithCancel(ctx)
	if err := billing.Run(ctx, tracecontext.Handler(placedV2.Handle(s.bill))); err != nil {
		return err
	}
	if s.pence != 519 || s.dead != "o-2" || s.trace != incoming {
		return fmt.Errorf("billed %d pence, refused %q, trace %q", s.pence, s.dead, s.trace)
	}
	return nil
}

// A story prints what happens and notes it.
type story struct {
	out   io.Writer
	mu    sync.Mutex
	pence int
	dead  string
	trace string
	seen  int
	stop  context.CancelFunc
}

// bill is called with values; it never sees a message.
func (s *story) bill(ctx context.Context, o orderV2) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	trace := "none"
	if t, ok := tracecontext.FromContext(ctx); ok {
		trace = t.Traceparent()
		s.trace = trace
	}
	fmt.Fprintf(s.out, "billed %s: %d pence; trace %s\n", o.Order, o.Pence, trace)
	s.pence += o.Pence
	s.step()
	return nil
}

// refused is told about dead letters. There was one attempt: another could not read the message either.
func (s *story) refused(d pubsub.DeadLettered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "refused after %d attempt: %v\n", d.Attempts, d.Err)
	s.dead = d.Message.Key
	s.step()
}

func (s *story) step() {
	if s.seen++; s.seen == 3 {
		s.stop()
	}
}
