package retry_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/backstay-go/backstay/retry"
)

func Example() {
	r := retry.New(retry.Config{Name: "stock", MaxAttempts: 4, InitialInterval: time.Millisecond})
	attempts := 0
	stock := retry.Wrap(r, func(_ context.Context, sku string) (int, error) {
		if attempts++; attempts < 3 {
			return 0, errors.New("connection reset")
		}
		return 12, nil
	})
	n, err := stock(context.Background(), "85123A")
	fmt.Println(n, err, "after", attempts, "attempts")
	// Output: 12 <nil> after 3 attempts
}

func ExamplePermanent() {
	r := retry.New(retry.Config{Name: "orders"})
	err := r.Do(context.Background(), func(context.Context) error {
		return retry.Permanent(errors.New("the order has no lines"))
	})
	fmt.Println(err, r.Stats().Retries)
	// Output: the order has no lines 0
}

func ExampleWithBudget() {
	budget := retry.NewBudget(retry.BudgetConfig{Name: "bank", Burst: 2, MinPerSecond: -1})
	cfg := retry.Config{MaxAttempts: 3, InitialInterval: -1}
	charge := retry.New(cfg, retry.WithBudget(budget))
	refund := retry.New(cfg, retry.WithBudget(budget))
	down := func(context.Context) error { return errors.New("bank is down") }
	fmt.Println(charge.Do(context.Background(), down))
	fmt.Println(refund.Do(context.Background(), down))
	// Output:
	// retry "retry": gave up after attempt 3: bank is down
	// retry "retry": stopped after attempt 1 (retry: the budget is spent): bank is down
}

func ExampleWithBackOff() {
	r := retry.New(retry.Config{Name: "bank", MaxAttempts: -1}, retry.WithBackOff(func() backoff.BackOff {
		return backoff.WithMaxRetries(backoff.NewConstantBackOff(time.Millisecond), 2)
	}))
	err := r.Do(context.Background(), func(ctx context.Context) error {
		fmt.Println("attempt", retry.Attempt(ctx))
		return errors.New("503")
	})
	fmt.Println(err)
	// Output:
	// attempt 1
	// attempt 2
	// attempt 3
	// retry "bank": gave up after attempt 3: 503
}
