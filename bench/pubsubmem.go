package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	gocloud "gocloud.dev/pubsub"
	gocloudmem "gocloud.dev/pubsub/mempubsub"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// passed is what goes through the channels of the floor.
type passed struct{ payload []byte }

const channelRoom = 1000

// channels is the floor: a pointer goes through a buffered channel for each subscriber, and nobody acknowledges it.
func channels(_ *testing.B, s shape) pass {
	all := make([]chan *passed, s.subscribers)
	var readers sync.WaitGroup
	for i := range all {
		messages := make(chan *passed, channelRoom)
		all[i] = messages
		for range s.members {
			readers.Go(func() {
				for m := range messages {
					if len(m.payload) != bodySize {
						panic("another payload")
					}
				}
			})
		}
	}
	payload := body()
	return func(n int) {
		for range n {
			m := &passed{payload}
			for _, messages := range all {
				messages <- m
			}
		}
		for _, messages := range all {
			close(messages)
		}
		readers.Wait()
	}
}

// countdown is closed when the last of many acknowledgements is made.
type countdown struct {
	left atomic.Int64
	done chan struct{}
}

func newCountdown(n int) *countdown {
	c := &countdown{done: make(chan struct{})}
	c.left.Store(int64(n))
	return c
}

func (c *countdown) acked() {
	if c.left.Add(-1) == 0 {
		close(c.done)
	}
}

// goChannel has a goroutine for each member; competing ones share the channel of one subscription, since every subscription
// of a gochannel gets every message.
func goChannel(cfg gochannel.Config) func(*testing.B, shape) pass {
	return func(b *testing.B, s shape) pass {
		bus := gochannel.NewGoChannel(cfg, watermill.NopLogger{})
		b.Cleanup(func() { check(b, bus.Close()) })
		count := newCountdown(b.N * s.subscribers)
		for range s.subscribers {
			messages, err := bus.Subscribe(context.Background(), "t")
			must(b, err)
			for range s.members {
				go func() {
					for m := range messages {
						m.Ack()
						count.acked()
					}
				}()
			}
		}
		payload := body()
		return func(n int) {
			for range n {
				check(b, bus.Publish("t", message.NewMessage("id", payload)))
			}
			<-count.done
		}
	}
}

// goCloud publishes everything before it receives anything: a receiver that finds nothing sleeps for a quarter of a second,
// which would be all that there is to measure.
func goCloud(b *testing.B, s shape) pass {
	ctx := context.Background()
	topic := gocloudmem.NewTopic()
	subscriptions := make([]*gocloud.Subscription, s.subscribers)
	for i := range subscriptions {
		subscriptions[i] = gocloudmem.NewSubscription(topic, time.Minute)
	}
	payload := body()
	return func(n int) {
		for range n {
			check(b, topic.Send(ctx, &gocloud.Message{Body: payload}))
		}
		var receivers sync.WaitGroup
		for _, subscription := range subscriptions {
			var taken atomic.Int64
			for range s.members {
				receivers.Go(func() {
					for taken.Add(1) <= int64(n) {
						m, err := subscription.Receive(ctx)
						if err != nil {
							b.Error(err)
							return
						}
						m.Ack()
					}
				})
			}
		}
		receivers.Wait()
		for _, subscription := range subscriptions { // acknowledges what is under way
			check(b, subscription.Shutdown(ctx))
		}
		b.StopTimer()
		check(b, topic.Shutdown(ctx))
	}
}

// memBus publishes so many messages a call.
func memBus(perCall int) func(*testing.B, shape) pass {
	return func(b *testing.B, s shape) pass {
		bus, driver := newMemBus()
		count := newCountdown(b.N * s.subscribers)
		handle := func(context.Context, pubsub.Message) error {
			count.acked()
			return nil
		}
		var drains []func()
		for group := range s.subscribers {
			for range s.members {
				drains = append(drains, run(b, bus, pubsub.Subscription{Topic: "t", Group: fmt.Sprint("g", group)}, handle))
			}
		}
		payload := body()
		batch := make([]pubsub.Message, perCall)
		for i := range batch {
			batch[i] = pubsub.Message{ID: "id", Topic: "t", Payload: payload}
		}
		return func(n int) {
			for rest := n; rest > 0; rest -= perCall {
				check(b, bus.Publish(context.Background(), batch[:min(rest, perCall)]...))
			}
			<-count.done
			for _, drain := range drains { // settles what handlers have returned
				drain()
			}
			b.StopTimer()
			if pending := driver.Stats().Pending; pending > 0 {
				b.Errorf("%d messages are not acknowledged", pending)
			}
		}
	}
}

func newMemBus() (*pubsub.Bus, *mempubsub.Driver) {
	driver := mempubsub.New(mempubsub.Config{})
	return pubsub.New(driver), driver
}

// run opens a consumer and runs it until the result is called, which returns when everything is settled, or the benchmark ends.
// Then it closes the bus.
func run(b *testing.B, bus *pubsub.Bus, s pubsub.Subscription, h pubsub.Handler) (drain func()) {
	ctx, cancel := context.WithCancel(context.Background())
	c, err := bus.Open(ctx, s)
	if err != nil {
		cancel()
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, h) }()
	drain = sync.OnceFunc(func() {
		cancel()
		check(b, <-ended)
	})
	b.Cleanup(func() {
		drain()
		check(b, bus.Close())
	})
	return drain
}

// quantileOf sorts all.
func quantileOf(all []time.Duration, quantile float64) float64 {
	slices.Sort(all)
	return float64(all[min(int(quantile*float64(len(all))), len(all)-1)].Nanoseconds())
}
