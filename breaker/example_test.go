package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/backstay-go/backstay/breaker"
)

func Example() {
	b := breaker.New(breaker.Config{Name: "bank", ConsecutiveFailures: 2})
	charge := breaker.Wrap(b, func(_ context.Context, pence int) (string, error) {
		return "", errors.New("connection refused")
	})
	for range 3 {
		_, err := charge(context.Background(), 499)
		fmt.Println(b.State(), "-", errors.Is(err, breaker.ErrOpen))
	}
	// Output:
	// closed - false
	// open - false
	// open - true
}

func ExampleBreaker_Acquire() {
	b := breaker.New(breaker.Config{Name: "inventory"})
	handler := func(w http.ResponseWriter, r *http.Request) error {
		permit, err := b.Acquire(r.Context())
		if err != nil {
			return err // nothing was sent to the inventory
		}
		defer permit.Abort() // a panic counts as a failure
		err = forward(w, r)
		permit.Done(err)
		return err
	}
	fmt.Println(handler(nil, &http.Request{}), b.Stats().Successes)
	// Output: <nil> 1
}

func forward(http.ResponseWriter, *http.Request) error { return nil }

func ExampleWithClassifier() {
	errNotFound := errors.New("no such order")
	b := breaker.New(breaker.Config{ConsecutiveFailures: 1}, breaker.WithClassifier(func(ctx context.Context, err error) breaker.Outcome {
		if errors.Is(err, errNotFound) {
			return breaker.Success // the service has answered: it is well
		}
		return breaker.Classify(ctx, err)
	}))
	_ = b.Do(context.Background(), func(context.Context) error { return errNotFound })
	fmt.Println(b.State())
	// Output: closed
}

func ExampleOnStateChange() {
	b := breaker.New(breaker.Config{Name: "bank", ConsecutiveFailures: 1}, breaker.OnStateChange(func(t breaker.Transition) {
		fmt.Printf("%s: %v to %v\n", t.Name, t.From, t.To)
	}))
	_ = b.Do(context.Background(), func(context.Context) error { return errors.New("reset by peer") })
	// Output: bank: closed to open
}

func ExampleWrapBy() {
	hosts := breaker.NewSet[string](breaker.SetConfig{Name: "hosts", Each: breaker.Config{ConsecutiveFailures: 1}})
	get := breaker.WrapBy(hosts, func(host string) string { return host }, func(_ context.Context, host string) (string, error) {
		if host == "a.example" {
			return "", errors.New("connection refused")
		}
		return "hello from " + host, nil
	})
	for _, host := range []string{"a.example", "a.example", "b.example"} {
		answer, err := get(context.Background(), host)
		fmt.Println(answer, errors.Is(err, breaker.ErrOpen))
	}
	fmt.Println(hosts.Get("a.example").State(), hosts.Get("b.example").State())
	// Output:
	//  false
	//  true
	// hello from b.example false
	// open closed
}

func ExampleBreaker_Reconfigure() {
	b := breaker.New(breaker.Config{Name: "bank", WindowTime: 10 * time.Second, SlowCall: 2 * time.Second})
	maintenance := b.Config()
	maintenance.Mode = "force_open"
	if err := b.Reconfigure(maintenance); err != nil {
		fmt.Println(err)
	}
	err := b.Do(context.Background(), func(context.Context) error { return nil })
	fmt.Println(err)
	// Output: breaker "bank" is forced open
}
