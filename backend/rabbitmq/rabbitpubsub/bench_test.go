package rabbitpubsub_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/pubsub"
)

const (
	benchWindow   = 1000 // messages in flight, unconfirmed or unacknowledged
	benchPayload  = 256
	benchMessages = 20_000
	benchMultiAck = 64
)

func benchBatch() []pubsub.Message {
	msgs := make([]pubsub.Message, benchMessages)
	payload := make([]byte, benchPayload)
	now := time.Now()
	for i := range msgs {
		msgs[i] = pubsub.Message{ID: "m-" + strconv.Itoa(i), Topic: "t", Key: strconv.Itoa(i % 100), Payload: payload, Time: now}
	}
	return msgs
}

// benchDriver has a group g for its topic.
func benchDriver(b *testing.B, change ...func(*pubsub.Subscription)) *driver {
	b.Helper()
	d := newDriver(b, shared(b), rabbitpubsub.Config{Window: benchWindow, Prefetch: benchWindow})
	r, err := d.Open(soon(b), subscription(change...))
	require.NoError(b, err)
	require.NoError(b, r.Close())
	return d
}

// rawChannel is one of the client that the driver uses.
func rawChannel(b *testing.B, url string) *amqp.Channel {
	b.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	require.NoError(b, err)
	return ch
}

// measure runs f once per iteration, with everything else off the clock.
func measure(b *testing.B, prepare func() (run func())) {
	b.Helper()
	b.ReportAllocs()
	for range b.N {
		b.StopTimer()
		run := prepare()
		b.StartTimer()
		run()
	}
	b.StopTimer()
	b.ReportMetric(float64(benchMessages)*float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkPublish compares one call of many messages, and many calls of one, with the client itself: the same exchange
// and queue, headers and window of unconfirmed messages.
func BenchmarkPublish(b *testing.B) {
	b.Run("raw", func(b *testing.B) {
		measure(b, func() func() {
			d := benchDriver(b)
			ch, msgs := rawChannel(b, d.url), benchBatch()
			return func() { rawPublish(b, ch, d.cfg.Prefix+":t", msgs) }
		})
	})
	b.Run("batch", func(b *testing.B) {
		measure(b, func() func() {
			d, msgs := benchDriver(b), benchBatch()
			publish(b, d, message("first", ""))
			return func() { publish(b, d, msgs...) }
		})
	})
	b.Run("concurrent", func(b *testing.B) {
		measure(b, func() func() {
			d, msgs := benchDriver(b), benchBatch()
			publish(b, d, message("first", ""))
			return func() { publishApart(b, d, msgs) }
		})
	})
}

// publishApart makes a call for each message, 512 at a time.
func publishApart(b *testing.B, d pubsub.Driver, msgs []pubsub.Message) {
	b.Helper()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 512 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(msgs)); i = next.Add(1) - 1 {
				if errs := d.Publish(b.Context(), msgs[i:i+1]); errs != nil {
					b.Error(errs[0])
				}
			}
		})
	}
	wg.Wait()
}

func rawPublish(b *testing.B, ch *amqp.Channel, exchange string, msgs []pubsub.Message) {
	b.Helper()
	require.NoError(b, ch.Confirm(false))
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, benchWindow))
	open := 0
	confirm := func() {
		if c := <-confirms; !c.Ack {
			b.Error("not accepted")
		}
		open--
	}
	for i := range msgs {
		if open == benchWindow {
			confirm()
		}
		m := &msgs[i]
		err := ch.PublishWithContext(b.Context(), exchange, strconv.Itoa(i%4), true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, MessageId: m.ID, Body: m.Payload, Headers: amqp.Table{
				"cloudEvents_specversion": "1.0", "cloudEvents_id": m.ID, "cloudEvents_source": "/bench", "cloudEvents_type": m.Topic,
				"cloudEvents_partitionkey": m.Key, "cloudEvents_time": m.Time.UTC().Format(time.RFC3339Nano),
			}})
		if err != nil {
			b.Fatal(err)
		}
		open++
	}
	for open > 0 {
		confirm()
	}
}

// BenchmarkConsume compares a consumer whose handler does nothing with the client itself, which holds as many messages, over
// all lanes, and acknowledges many at a time. The clock stops when the broker has read the last acknowledgement.
func BenchmarkConsume(b *testing.B) {
	b.Run("raw", func(b *testing.B) {
		measure(b, func() func() {
			d := benchDriver(b)
			publish(b, d, benchBatch()...)
			ch := rawChannel(b, d.url)
			return func() { rawConsume(b, ch, d.cfg.Prefix+":t:g") }
		})
	})
	b.Run("unordered", func(b *testing.B) { busConsume(b) })
	b.Run("ordered", func(b *testing.B) { busConsume(b, ordered) })
}

func rawConsume(b *testing.B, ch *amqp.Channel, queue string) {
	b.Helper()
	require.NoError(b, ch.Qos(benchWindow, 0, false))
	deliveries, err := ch.ConsumeWithContext(b.Context(), queue, "raw", false, false, false, false, nil)
	require.NoError(b, err)
	for n := 1; n <= benchMessages; n++ {
		d := <-deliveries
		if n%benchMultiAck == 0 || n == benchMessages {
			require.NoError(b, d.Ack(true))
		}
	}
	require.NoError(b, ch.Close())
}

func busConsume(b *testing.B, change ...func(*pubsub.Subscription)) {
	b.Helper()
	measure(b, func() func() {
		d := benchDriver(b, change...)
		publish(b, d, benchBatch()...)
		bus := pubsub.New(d)
		s := subscription(change...)
		c, err := bus.Open(b.Context(), pubsub.Subscription{
			Topic: s.Topic, Group: s.Group, Ordered: s.Ordered, LaneDepth: benchWindow / 4})
		require.NoError(b, err)
		return func() {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			var seen atomic.Int64
			require.NoError(b, c.Run(ctx, func(context.Context, pubsub.Message) error {
				if seen.Add(1) == benchMessages {
					cancel()
				}
				return nil
			}))
		}
	})
}
