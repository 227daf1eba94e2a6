package requestreply_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
	"github.com/backstay-go/backstay/pubsub/requestreply"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

type priceRequest struct {
	SKU string `json:"sku"`
}

type price struct {
	Cents int `json:"cents"`
}

// servePrices runs fn for requests until stop is called. In a service it is another process.
func servePrices(bus *pubsub.Bus, fn func(context.Context, priceRequest) (price, error)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	c, err := bus.Open(ctx, pubsub.Subscription{Topic: "prices", Group: "pricing"})
	if err != nil {
		panic(err)
	}
	server := requestreply.NewServer(bus, requestreply.ServerConfig{Name: "pricing"}, fn)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Run(ctx, server.Handle) // in a service, see its error
	}()
	return func() {
		cancel()
		<-ended
	}
}

func Example() {
	ctx := context.Background()
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	defer bus.Close()
	stop := servePrices(bus, func(_ context.Context, r priceRequest) (price, error) {
		return price{Cents: 100 * len(r.SKU)}, nil
	})
	defer stop()

	client, err := requestreply.NewClient[priceRequest, price](ctx, bus, requestreply.ClientConfig{Topic: "prices"})
	if err != nil {
		panic(err)
	}
	defer client.Close()
	p, err := client.Call(ctx, priceRequest{SKU: "a-17"})
	fmt.Println(p.Cents, err)
	// Output: 400 <nil>
}

// Call is a function: policies go round it as round any other. The key lets the server see that two attempts are one
// request.
func ExampleClient_Call_policies() {
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	defer bus.Close()
	attempts := make(map[string]int) // by idempotency key
	stop := servePrices(bus, func(ctx context.Context, _ priceRequest) (price, error) {
		key := requestreply.IdempotencyKey(ctx)
		attempts[key]++
		if attempts[key] == 1 {
			return price{}, errors.New("the price list is being loaded")
		}
		return price{Cents: 1299}, nil
	})
	defer stop()
	client, err := requestreply.NewClient[priceRequest, price](context.Background(), bus, requestreply.ClientConfig{Topic: "prices"})
	if err != nil {
		panic(err)
	}
	defer client.Close()

	lookUp := backstay.Wrap(client.Call,
		timeout.New(timeout.Config{Name: "prices", After: 10 * time.Second}),
		retry.New(retry.Config{Name: "prices", InitialInterval: time.Millisecond}),
		breaker.New(breaker.Config{Name: "prices"}),
	)
	ctx := requestreply.WithIdempotencyKey(context.Background(), "basket-4/line-2")
	p, err := lookUp(ctx, priceRequest{SKU: "a-17"})
	fmt.Println(p.Cents, err, attempts)
	// Output: 1299 <nil> map[basket-4/line-2:2]
}

// What the server answers and what has become of the request are two questions.
func ExampleRemoteError() {
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	defer bus.Close()
	left := make(chan struct{})
	stop := servePrices(bus, func(_ context.Context, r priceRequest) (price, error) {
		if r.SKU == "slow" {
			<-left // answers once the caller has given up
			return price{}, nil
		}
		return price{}, &requestreply.RemoteError{Code: "sku.unknown", Text: "no SKU " + r.SKU, Final: true}
	})
	defer stop()
	client, err := requestreply.NewClient[priceRequest, price](context.Background(), bus, requestreply.ClientConfig{
		Topic: "prices", Timeout: 100 * time.Millisecond,
	})
	if err != nil {
		panic(err)
	}
	defer client.Close()

	for _, sku := range []string{"a-17", "slow"} {
		_, err := client.Call(context.Background(), priceRequest{SKU: sku})
		var answer *requestreply.RemoteError
		switch {
		case errors.As(err, &answer):
			fmt.Println("answered:", answer.Code, answer.Text, "permanent:", answer.Permanent())
		case errors.Is(err, pubsub.ErrInDoubt):
			fmt.Println("in doubt:", err)
		}
	}
	close(left)
	// Output:
	// answered: sku.unknown no SKU a-17 permanent: true
	// in doubt: requestreply: client "prices" (in doubt): context deadline exceeded
}
