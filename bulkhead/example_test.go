package bulkhead_test

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/backstay-go/backstay/bulkhead"
)

func Example() {
	b := bulkhead.New(bulkhead.Config{Name: "reports", MaxConcurrent: 1})
	report := bulkhead.Wrap(b, func(ctx context.Context, month string) (string, error) {
		// A second report while this one runs is refused at once, instead of slowing both.
		err := b.Do(ctx, func(context.Context) error { return nil })
		fmt.Println(err)
		return "report of " + month, nil
	})
	fmt.Println(report(context.Background(), "December"))
	// Output:
	// bulkhead "reports" is full: 1 calls run and 0 may wait
	// report of December <nil>
}

func ExampleBulkhead_Acquire() {
	b := bulkhead.New(bulkhead.Config{Name: "exports", MaxConcurrent: 2})
	export := func(ctx context.Context, w io.Writer) error {
		permit, err := b.Acquire(ctx)
		if err != nil {
			return err
		}
		defer permit.Abort() // however this function ends
		_, err = io.WriteString(w, "rows")
		return err
	}
	fmt.Println(export(context.Background(), io.Discard), b.Stats().Running)
	// Output: <nil> 0
}

func ExampleBulkhead_AcquireN() {
	b := bulkhead.New(bulkhead.Config{Name: "uploads", MaxConcurrent: 100}) // megabytes in memory
	large, err := b.AcquireN(context.Background(), 80)
	fmt.Println(err, b.Stats().Running)
	_, err = b.AcquireN(context.Background(), 30)
	fmt.Println(errors.Is(err, bulkhead.ErrFull))
	large.Done(nil)
	fmt.Println(b.Stats().Running)
	// Output:
	// <nil> 80
	// true
	// 0
}

func ExampleWrapBy() {
	hosts := bulkhead.NewSet[string](bulkhead.SetConfig{Name: "hosts", Each: bulkhead.Config{MaxConcurrent: 1}})
	fetch := bulkhead.WrapBy(hosts, func(host string) string { return host },
		func(ctx context.Context, host string) (string, error) {
			err := hosts.Get(host).Do(ctx, func(context.Context) error { return nil })
			fmt.Println(err) // the one permit of this host is ours
			return "page of " + host, hosts.Get("other.example").Do(ctx, func(context.Context) error { return nil })
		})
	fmt.Println(fetch(context.Background(), "slow.example"))
	// Output:
	// bulkhead "hosts[slow.example]" is full: 1 calls run and 0 may wait
	// page of slow.example <nil>
}

func ExampleBulkhead_Reconfigure() {
	b := bulkhead.New(bulkhead.Config{Name: "bank", MaxConcurrent: 4})
	fmt.Println(b.Reconfigure(bulkhead.Config{Name: "bank", MaxConcurrent: 8}), b.Stats().Limit)
	fmt.Println(b.Reconfigure(bulkhead.Config{Name: "bank", MaxConcurrent: -8}), b.Stats().Limit)
	_, err := b.Acquire(context.Background())
	fmt.Println(errors.Is(err, bulkhead.ErrFull))
	// Output:
	// <nil> 8
	// bulkhead "bank": Config.MaxConcurrent is -8: it must be from 1 to 1000000, or 0 for the default 8
	// false
}
