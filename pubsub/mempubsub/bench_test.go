package mempubsub_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

func BenchmarkFanOut(b *testing.B) {
	for _, groups := range []int{1, 4} {
		for _, ordered := range []bool{false, true} {
			b.Run(fmt.Sprintf("groups=%d/ordered=%v", groups, ordered), func(b *testing.B) { fanOut(b, groups, 1, ordered) })
		}
	}
}

func BenchmarkCompeting(b *testing.B) { fanOut(b, 1, 4, false) }

func fanOut(b *testing.B, groups, members int, ordered bool) {
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	ctx, cancel := context.WithCancel(b.Context())
	var left atomic.Int64
	left.Store(int64(b.N * groups))
	finished := make(chan struct{})
	done := make(chan error, groups*members)
	for g := range groups {
		for range members {
			c, err := bus.Open(ctx, pubsub.Subscription{Topic: "t", Group: fmt.Sprint("g", g), Ordered: ordered})
			if err != nil {
				b.Fatal(err)
			}
			go func() {
				done <- c.Run(ctx, func(context.Context, pubsub.Message) error {
					if left.Add(-1) == 0 {
						close(finished)
					}
					return nil
				})
			}()
		}
	}
	payload := make([]byte, 256)
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprint("key", i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	batch := make([]pubsub.Message, 0, 100)
	for i := 0; i < b.N; {
		batch = batch[:0]
		for ; i < b.N && len(batch) < cap(batch); i++ {
			batch = append(batch, pubsub.Message{ID: "id", Topic: "t", Key: keys[i%len(keys)], Payload: payload})
		}
		if err := bus.Publish(ctx, batch...); err != nil {
			b.Fatal(err)
		}
	}
	<-finished
	b.StopTimer()
	cancel()
	for range groups * members {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
