package test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
	"github.com/backstay-go/backstay/pubsub/requestreply"
	"github.com/backstay-go/backstay/pubsub/tracecontext"
)

type orderPlaced struct {
	ID    string
	Pence int
}

// What the page takes as given.
var ordersPlaced = pubsub.JSON("orders.placed", func(o orderPlaced) string { return o.ID })

func publishTwice(ctx context.Context, bus pubsub.Publisher, m pubsub.Message) error {
	// docs:
	m.ID = "order-4711-placed" // the same in each attempt: who sees it twice knows it
	err := bus.Publish(ctx, m)
	if errors.Is(err, pubsub.ErrInDoubt) {
		err = bus.Publish(ctx, m) // the broker may have it already
	}
	// docs: end
	return err
}

// doubting accepts messages and loses its first answer.
type doubting struct{ accepted []string }

func (d *doubting) Publish(_ context.Context, msgs ...pubsub.Message) error {
	d.accepted = append(d.accepted, msgs[0].ID)
	if len(d.accepted) == 1 {
		return pubsub.ErrInDoubt
	}
	return nil
}

func TestPublishingAsTheDocsShow(t *testing.T) {
	d := &doubting{}
	require.NoError(t, publishTwice(t.Context(), d, pubsub.Message{}))
	require.Equal(t, []string{"order-4711-placed", "order-4711-placed"}, d.accepted)
}

func TestConsumingAsTheDocsShow(t *testing.T) { synctest.Test(t, consuming) }

func consuming(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	driver := mempubsub.New(mempubsub.Config{})
	billed := 0
	bill := func(_ context.Context, o orderPlaced) error {
		billed += o.Pence
		stop()
		return nil
	}
	publisher := pubsub.New(driver.Connect())
	defer func() { require.NoError(t, publisher.Close()) }()
	time.AfterFunc(time.Second, func() { _ = ordersPlaced.Publish(ctx, publisher, orderPlaced{"o-1", 420}) })
	// docs:
	bus := pubsub.New(driver)
	defer func() { _ = bus.Close() }()
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: ordersPlaced.Name(), Group: "billing", Ordered: true})
	if err != nil {
		return
	}
	bank := breaker.New(breaker.Config{Name: "bank"})
	err = c.Run(ctx, backstay.WrapErr(ordersPlaced.Handle(bill), bank)) // until ctx is cancelled; then it drains
	// docs: end
	require.NoError(t, err)
	require.Equal(t, 420, billed)
	require.EqualValues(t, 1, bank.Stats().Successes)
}

var errRateLimited, errNoSuchAccount = errors.New("rate limited"), errors.New("no such account")

func verdict(err error) error {
	// docs:
	switch {
	case errors.Is(err, errNoSuchAccount):
		return pubsub.DeadLetter(err) // no attempt will ever succeed
	case errors.Is(err, errRateLimited):
		return pubsub.RetryAfter(time.Minute, err) // instead of the backoff
	default:
		return err // nil: handled; else again after the backoff
	}
	// docs: end
}

func TestVerdictsAsTheDocsShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		bus := pubsub.New(mempubsub.New(mempubsub.Config{}), pubsub.OnDeadLetter(func(pubsub.DeadLettered) { stop() }))
		defer func() { require.NoError(t, bus.Close()) }()
		c, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "billing"})
		require.NoError(t, err)
		require.NoError(t, bus.Publish(ctx, pubsub.Message{Topic: "orders"}))
		begun := time.Now()
		require.NoError(t, c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
			return verdict([]error{errRateLimited, errNoSuchAccount}[m.Attempt-1])
		}))
		require.Equal(t, time.Minute, time.Since(begun))
		require.NoError(t, verdict(nil))
	})
}

func TestRedrivingAsTheDocsShow(t *testing.T) { synctest.Test(t, redriving) }

func redriving(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}), pubsub.OnDeadLetter(func(pubsub.DeadLettered) { stop() }))
	defer func() { require.NoError(t, bus.Close()) }()
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders.placed", Group: "billing"})
	require.NoError(t, err)
	require.NoError(t, bus.Publish(ctx, pubsub.Message{Topic: "orders.placed"}))
	require.NoError(t, c.Run(ctx, func(context.Context, pubsub.Message) error { return pubsub.DeadLetter(errDown) }))
	ctx = t.Context()
	// docs:
	moved, err := bus.Redrive(ctx, "orders.placed", "billing", 0) // 0: all that are there
	// docs: end
	require.NoError(t, err)
	require.Equal(t, 1, moved)
}

// rows is a table whose Insert takes what it can.
type rows map[string]bool

func (r rows) Insert(_ context.Context, batch []pubsub.Message) error {
	for _, m := range batch {
		r[m.ID] = true
	}
	return nil
}

func TestBatchesAsTheDocsShow(t *testing.T) { synctest.Test(t, batching) }

func batching(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	defer func() { require.NoError(t, bus.Close()) }()
	table := rows{}
	time.AfterFunc(time.Second, func() { _ = bus.Publish(ctx, pubsub.Message{Topic: "readings", ID: "1"}) })
	time.AfterFunc(2*time.Second, stop)
	// docs:
	c, err := bus.Open(ctx, pubsub.Subscription{
		Topic: "readings", Group: "table",
		BatchSize: 500, BatchWait: 100 * time.Millisecond, Concurrency: 2,
	})
	if err != nil {
		return
	}
	err = c.RunBatch(ctx, func(ctx context.Context, msgs []pubsub.Message) error {
		return table.Insert(ctx, msgs) // in one transaction: an error means all of them again
	})
	// docs: end
	require.NoError(t, err)
	require.Equal(t, rows{"1": true}, table)
}

func TestCallingAsTheDocsShow(t *testing.T) { synctest.Test(t, calling) }

func calling(t *testing.T) {
	ctx := t.Context()
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	server := requestreply.NewServer(bus, requestreply.ServerConfig{}, func(_ context.Context, id string) (int, error) { return len(id), nil })
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "prices", Group: "pricing"})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, server.Handle) }()
	// docs:
	client, err := requestreply.NewClient[string, int](ctx, bus, requestreply.ClientConfig{Topic: "prices"})
	if err != nil {
		return
	}
	defer func() { _ = client.Close() }()
	pence, err := client.Call(ctx, "tea")
	// docs: end
	require.NoError(t, err)
	require.Equal(t, 3, pence)
	require.NoError(t, bus.Close())
	require.NoError(t, <-ended)
}

func TestTypedTopicsAsTheDocsShow(t *testing.T) {
	// docs:
	placed := pubsub.JSON("orders.placed", func(o orderPlaced) string { return o.ID }).Version("2")
	// docs: end
	m, err := placed.Message(orderPlaced{"o-1", 420})
	require.NoError(t, err)
	require.Equal(t, "o-1", m.Key)
	require.Equal(t, "2", m.Header["schema-version"])
}

func TestTracingAsTheDocsShow(t *testing.T) { synctest.Test(t, tracing) }

func tracing(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	defer func() { require.NoError(t, bus.Close()) }()
	consumer, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "billing"})
	require.NoError(t, err)
	incoming, err := tracecontext.Parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "")
	require.NoError(t, err)
	ctx = tracecontext.NewContext(ctx, incoming)
	m, seen := pubsub.Message{Topic: "orders"}, ""
	time.AfterFunc(time.Second, stop)
	handle := func(ctx context.Context, _ pubsub.Message) error {
		trace, _ := tracecontext.FromContext(ctx)
		seen = trace.Traceparent()
		return nil
	}
	// docs:
	err = tracecontext.Publisher(bus).Publish(ctx, m)         // in one process
	runErr := consumer.Run(ctx, tracecontext.Handler(handle)) // in another
	// docs: end
	require.NoError(t, errors.Join(err, runErr))
	require.Equal(t, incoming.Traceparent(), seen)
}
