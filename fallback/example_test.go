package fallback_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/backstay-go/backstay/fallback"
)

func Example() {
	f := fallback.New(fallback.Config{Name: "price"})
	price := fallback.Wrap(f,
		func(_ context.Context, sku string) (int, error) { return 0, errors.New("supplier is down") },
		func(_ context.Context, sku string, cause error) (int, error) { return 255, nil }, // yesterday's price
	)
	ctx, seen := fallback.Observe(context.Background())
	pence, err := price(ctx, "85123A")
	fmt.Println(pence, err)
	fmt.Println("degraded:", seen.Degraded(), "because", seen.Cause())
	// Output:
	// 255 <nil>
	// degraded: true because supplier is down
}

func ExampleOnly() {
	errNoSuch := errors.New("no such product")
	outage := func(err error) bool { return !errors.Is(err, errNoSuch) }
	price := fallback.Wrap(fallback.New(fallback.Config{}),
		func(_ context.Context, sku string) (int, error) { return 0, errNoSuch },
		fallback.Only(outage, func(context.Context, string, error) (int, error) { return 255, nil }),
	)
	fmt.Println(price(context.Background(), "?"))
	// Output: 0 no such product
}

func ExampleOnUse() {
	f := fallback.New(fallback.Config{Name: "price"}, fallback.OnUse(func(e fallback.Event) {
		fmt.Printf("%s: alternative %d answered: %v\n", e.Name, e.Alternative, e.Cause)
	}))
	price := fallback.Wrap(f,
		func(context.Context, string) (int, error) { return 0, errors.New("supplier is down") },
		func(context.Context, string, error) (int, error) { return 0, errors.New("cache is empty") },
		func(context.Context, string, error) (int, error) { return 100, nil },
	)
	_, _ = price(context.Background(), "85123A")
	// Output: price: alternative 1 answered: supplier is down
}
