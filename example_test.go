package backstay_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

func ExampleWrap() {
	attempts := 0
	fetch := func(_ context.Context, id int) (string, error) {
		if attempts++; attempts == 1 {
			return "", errors.New("connection reset")
		}
		return fmt.Sprint("order ", id), nil
	}
	order := backstay.Wrap(fetch,
		timeout.New(timeout.Config{Name: "total", After: 2 * time.Second}),
		retry.New(retry.Config{Name: "orders", InitialInterval: time.Millisecond}),
		breaker.New(breaker.Config{Name: "orders"}),
		bulkhead.New(bulkhead.Config{Name: "orders"}),
	)
	fmt.Println(order(context.Background(), 536365))
	// Output: order 536365 <nil>
}

func ExampleCheck() {
	respond := func(context.Context, string) (int, error) { return 503, nil }
	checked := backstay.Check(respond, func(status int) error {
		if status >= 500 {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	r := retry.New(retry.Config{Name: "page", MaxAttempts: 2, InitialInterval: -1})
	fmt.Println(backstay.Wrap(checked, r)(context.Background(), "/"))
	// Output: 503 retry "page": gave up after attempt 2: status 503
}

func ExampleChain() {
	outward := backstay.Chain(
		retry.New(retry.Config{Name: "outward", InitialInterval: time.Millisecond}),
		breaker.New(breaker.Config{Name: "outward"}),
	)
	notify := backstay.WrapErr(func(_ context.Context, customer string) error {
		fmt.Println("told", customer)
		return nil
	}, outward)
	_ = notify(context.Background(), "17850")
	// Output: told 17850
}

func ExampleCall() {
	b := breaker.New(breaker.Config{Name: "clock"})
	year, err := backstay.Call(context.Background(), func(context.Context) (int, error) { return 2010, nil }, b)
	fmt.Println(year, err)
	// Output: 2010 <nil>
}
