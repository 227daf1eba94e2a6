package hedge_test

import (
	"context"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/hedge"
)

func Example() {
	h := hedge.New(hedge.Config{Name: "stock", After: 5 * time.Millisecond})
	stock := hedge.Wrap(h, func(ctx context.Context, sku string) (string, error) {
		if hedge.Attempt(ctx) == 2 {
			return "12 from replica B", nil
		}
		<-ctx.Done() // replica A collects its garbage
		return "", ctx.Err()
	}, nil)
	fmt.Println(stock(context.Background(), "85123A"))
	fmt.Println("second calls:", h.Stats().Hedged)
	// Output:
	// 12 from replica B <nil>
	// second calls: 1
}

func ExampleWrap_discard() {
	closed := make(chan string)
	h := hedge.New(hedge.Config{After: time.Millisecond})
	dial := hedge.Wrap(h, func(ctx context.Context, host string) (string, error) {
		if hedge.Attempt(ctx) == 1 {
			<-ctx.Done() // ends as soon as the other has won, yet with a connection
			return "slow connection to " + host, nil
		}
		return "fast connection to " + host, nil
	}, func(conn string) { closed <- conn })
	conn, _ := dial(context.Background(), "db")
	fmt.Println("use", conn)
	fmt.Println("close", <-closed)
	// Output:
	// use fast connection to db
	// close slow connection to db
}

func ExampleConfig_quantile() {
	h := hedge.New(hedge.Config{Name: "stock", After: -1, Quantile: 0.95}) // none until the latencies are known
	stock := hedge.Wrap(h, func(context.Context, string) (int, error) { return 12, nil }, nil)
	fmt.Println("delay known:", h.Stats().Delay > 0)
	for range 100 {
		_, _ = stock(context.Background(), "85123A")
	}
	fmt.Println("delay known:", h.Stats().Delay > 0)
	// Output:
	// delay known: false
	// delay known: true
}
