package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/ratelimit"
)

func Example() {
	l := ratelimit.New(ratelimit.Config{Name: "geocoder", Rate: 20, Burst: 2, MaxWait: time.Second})
	locate := ratelimit.Wrap(l, func(_ context.Context, place string) (string, error) { return "the way to " + place, nil })
	start := time.Now()
	for _, place := range []string{"Cowes", "Ryde", "Yarmouth"} {
		fmt.Println(locate(context.Background(), place))
	}
	fmt.Println("the third waited:", time.Since(start) > 40*time.Millisecond)
	// Output:
	// the way to Cowes <nil>
	// the way to Ryde <nil>
	// the way to Yarmouth <nil>
	// the third waited: true
}

func ExampleLimiter_Allow() {
	l := ratelimit.New(ratelimit.Config{Name: "traces", Rate: 0.1, Burst: 2})
	for range 3 {
		err := l.Allow()
		fmt.Println(err == nil, errors.Is(err, ratelimit.ErrLimited))
	}
	// Output:
	// true false
	// true false
	// false true
}

func ExampleLimiter_AllowN() {
	l := ratelimit.New(ratelimit.Config{Name: "rows", Rate: 0.01, Burst: 1000})
	fmt.Println(l.AllowN(900), l.Stats().Available)
	fmt.Println(l.AllowN(5000))
	// Output:
	// <nil> 100
	// ratelimit "rows": the weight 5000 is not from 1 to the burst of 1000
}

func ExampleWrapBy() {
	tenants := ratelimit.NewSet[string](ratelimit.SetConfig{Name: "tenants", Each: ratelimit.Config{Rate: 0.1, Burst: 1}})
	type query struct{ tenant, text string }
	search := ratelimit.WrapBy(tenants, func(q query) string { return q.tenant },
		func(_ context.Context, q query) (string, error) { return "results for " + q.text, nil })
	for _, q := range []query{{"acme", "rope"}, {"acme", "tar"}, {"bosun", "rope"}} {
		found, err := search(context.Background(), q)
		fmt.Println(q.tenant, found, errors.Is(err, ratelimit.ErrLimited))
	}
	// Output:
	// acme results for rope false
	// acme  true
	// bosun results for rope false
}
