package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/timeout"
)

func Example() {
	to := timeout.New(timeout.Config{Name: "bank", After: 10 * time.Millisecond})
	charge := timeout.Wrap(to, func(ctx context.Context, pence int) (string, error) {
		select {
		case <-time.After(time.Minute): // the bank thinks
			return "receipt", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	_, err := charge(context.Background(), 499)
	fmt.Println(err)
	// Output: timeout "bank": no answer within 10ms: context deadline exceeded
}

func ExampleAbandon() {
	to := timeout.New(timeout.Config{Name: "legacy printer", After: 10 * time.Millisecond})
	hangs := make(chan struct{})
	printLabel := timeout.Abandon(to, func(_ context.Context, order string) (string, error) {
		<-hangs // a driver that knows nothing of contexts
		return "label of " + order, nil
	})
	_, err := printLabel(context.Background(), "A-7")
	fmt.Println(err)
	fmt.Println("still running:", to.Stats().Abandoned)
	close(hangs)
	// Output:
	// timeout "legacy printer": no answer within 10ms: context deadline exceeded
	// still running: 1
}

func ExampleTimeout_Start() {
	to := timeout.New(timeout.Config{Name: "download", After: 10 * time.Millisecond})
	call := to.Start(context.Background())
	defer func() { _ = call.End(nil) }() // on every way out
	pieces := make(chan string)          // of a download that hangs
	select {
	case piece := <-pieces:
		fmt.Println(piece)
	case <-call.Context().Done():
		fmt.Println(call.End(call.Context().Err()))
	}
	// Output: timeout "download": no answer within 10ms: context deadline exceeded
}

func ExampleError() {
	to := timeout.New(timeout.Config{Name: "bank", After: time.Millisecond})
	err := to.Do(context.Background(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	fmt.Println(errors.Is(err, timeout.ErrTimeout), errors.Is(err, context.DeadlineExceeded))
	// Output: true true
}

func ExampleTimeout_Reconfigure() {
	to := timeout.New(timeout.Config{Name: "bank"})
	fmt.Println(to.Config().After)
	_ = to.Reconfigure(timeout.Config{Name: "bank", After: 250 * time.Millisecond})
	fmt.Println(to.Config().After)
	// Output:
	// 1s
	// 250ms
}
