package cache_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/cache"
)

// A counter that is written often reaches the source as few batches of last values.
func ExampleNewWriteBehind() {
	load := func(context.Context, string) (int, error) { return 0, nil }
	save := func(_ context.Context, writes []cache.Write[string, int]) error {
		for _, w := range writes {
			fmt.Println("saving", w.Key, w.Value)
		}
		return nil
	}
	views := cache.NewWriteBehind(load, save, cache.Config{Name: "views"}, cache.WriteBehindConfig{MaxDelay: time.Hour})
	ctx := context.Background()
	for i := range 1000 {
		_ = views.Set(ctx, "front page", i+1)
	}
	n, _ := views.Get(ctx, "front page")
	fmt.Println("read", n)

	deadline, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	fmt.Println(views.Close(deadline))
	// Output:
	// read 1000
	// saving front page 1000
	// <nil>
}

// errInvalid is an error of the source that says that a repetition is of no use.
type errInvalid struct{}

func (errInvalid) Error() string   { return "age is negative" }
func (errInvalid) Permanent() bool { return true }

// What the source refuses for good stays pending until somebody decides.
func ExampleWriteBehind_Refused() {
	save := func(_ context.Context, writes []cache.Write[string, int]) error {
		for _, w := range writes {
			if w.Value < 0 {
				return errInvalid{}
			}
		}
		return nil
	}
	load := func(context.Context, string) (int, error) { return 30, nil }
	ages := cache.NewWriteBehind(load, save, cache.Config{Name: "ages"}, cache.WriteBehindConfig{})
	ctx := context.Background()
	_ = ages.Set(ctx, "ann", -1)
	_ = ages.Set(ctx, "bob", 40)

	err := ages.Flush(ctx)
	fmt.Println(errors.Is(err, cache.ErrUnwritten))
	for key, reason := range ages.Refused() {
		fmt.Println(key, reason)
		_ = ages.Discard(ctx, key)
	}
	age, _ := ages.Get(ctx, "ann")
	fmt.Println(age, ages.Close(ctx))
	// Output:
	// true
	// ann age is negative
	// 30 <nil>
}
