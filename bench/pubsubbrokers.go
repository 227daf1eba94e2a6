package bench

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

const (
	publishMany = ", publish many"
	consumeAll  = ", consume and acknowledge"

	redisStreams = "Redis Streams"
	rabbitMQ     = "RabbitMQ"
	kafka        = "Kafka (kfake)"
)

// brokerKind is a broker that is reached over a connection. Its benchmarks pass a fixed number of messages, so that what happens
// once, such as joining a group, weighs the same for all subjects.
type brokerKind struct {
	name     string
	messages int
	limit    float64 // of the time that the client library alone takes
	needs    func() error
	open     func(b *testing.B, ordered bool) *counter
}

// counter is what a subject works with: our driver, and the client library beside it, on topics of their own.
type counter struct {
	bus   *pubsub.Bus
	start string // of the subscription that is to have everything
	depth int    // of its lanes, where they are what the broker sends unasked; zero: the default
	// publish and consume are the work of the client library alone; they return when the broker has confirmed everything.
	publish func(b *testing.B, msgs []pubsub.Message)
	consume func(b *testing.B, n int)
}

func brokerKinds() []brokerKind {
	return []brokerKind{
		{redisStreams, 50_000, 1 / 0.8, redisThere, openRedisStreams},
		{rabbitMQ, 20_000, 1 / 0.85, rabbitThere, openRabbitMQ},
		{kafka, 100_000, 1 / 0.8, nil, openKafka},
	}
}

func brokers(l *list) {
	for _, k := range brokerKinds() {
		for _, c := range []Case{
			{Name: k.name + publishMany, Subject: Floor, Run: k.passing(false, rawPublish)},
			{Name: k.name + publishMany, Subject: ours, Run: k.passing(false, busPublish)},
			{Name: k.name + consumeAll, Subject: Floor, Run: k.passing(false, rawRead)},
			{Name: k.name + consumeAll, Subject: ours, Run: k.passing(false, busRead(false))},
			{Name: k.name + consumeAll, Subject: oursOrdered, Run: k.passing(true, busRead(true))},
		} {
			c.Area, c.Needs = l.area, k.needs
			l.cases = append(l.cases, c)
		}
	}
}

func brokerTargets() []Target {
	var targets []Target
	for _, k := range brokerKinds() {
		targets = append(targets,
			Target{k.name + publishMany, ours, Floor, k.limit, false, 0, anyNumber},
			Target{k.name + consumeAll, ours, Floor, k.limit, false, 0, anyNumber},
			Target{k.name + consumeAll, oursOrdered, Floor, k.limit, false, 0, anyNumber})
	}
	return targets
}

// passing has the messages passed, b.N times, and reports what one of them takes as an operation.
func (k brokerKind) passing(ordered bool, prepare func(*testing.B, *counter, []pubsub.Message) (work func())) func(*testing.B) {
	return func(b *testing.B) {
		b.ReportAllocs()
		msgs := brokerMessages(k.messages)
		var objects, bytes uint64
		for range b.N {
			b.StopTimer()
			c := k.open(b, ordered)
			work := prepare(b, c, msgs)
			runtime.GC()
			o, n := allocated()
			b.StartTimer()
			work()
			b.StopTimer()
			oo, nn := allocated()
			objects, bytes = objects+oo-o, bytes+nn-n
		}
		all := float64(k.messages) * float64(b.N)
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/all, "ns/op")
		b.ReportMetric(float64(objects)/all, "allocs/op")
		b.ReportMetric(float64(bytes)/all, "B/op")
	}
}

func allocated() (objects, bytes uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}

// brokerTopic is where our driver publishes, and what the client library reads.
const brokerTopic = "orders"

func brokerMessages(n int) []pubsub.Message {
	payload, now := body(), time.Now()
	for i := range payload {
		payload[i] = byte(i * 131) // for clients that compress
	}
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i] = pubsub.Message{
			ID: "message-" + strconv.Itoa(i), Topic: brokerTopic, Key: "key" + strconv.Itoa(i%keyCount), Payload: payload, Time: now}
	}
	return msgs
}

var brokerPrefixes atomic.Int64

// ownPrefix is one that nobody else has on a server that others use.
func ownPrefix() string {
	return fmt.Sprintf("backstay-bench-%d-%d-%d", os.Getpid(), time.Now().UnixNano(), brokerPrefixes.Add(1))
}

// rawPublish and busPublish begin when the topic has been made, and has a message.
func rawPublish(b *testing.B, c *counter, msgs []pubsub.Message) func() {
	must(b, c.bus.Publish(context.Background(), msgs[0]))
	c.publish(b, msgs[:1])
	return func() { c.publish(b, msgs) }
}

func busPublish(b *testing.B, c *counter, msgs []pubsub.Message) func() {
	must(b, c.bus.Publish(context.Background(), msgs[0]))
	return func() {
		for call := range slices.Chunk(msgs, brokerCall) {
			must(b, c.bus.Publish(context.Background(), call...))
		}
	}
}

// brokerCall is the number of messages that one Publish has.
const brokerCall = 10_000

func rawRead(b *testing.B, c *counter, msgs []pubsub.Message) func() {
	must(b, c.bus.Publish(context.Background(), msgs...))
	return func() { c.consume(b, len(msgs)) }
}

// busRead is a consumer whose handler does nothing, with defaults except for the depth of lanes. Run returns when the broker has the last acknowledgement.
func busRead(ordered bool) func(*testing.B, *counter, []pubsub.Message) func() {
	return func(b *testing.B, c *counter, msgs []pubsub.Message) func() {
		must(b, c.bus.Publish(context.Background(), msgs...))
		consumer, err := c.bus.Open(context.Background(), pubsub.Subscription{
			Topic: brokerTopic, Group: natsGroup, Ordered: ordered, Start: c.start, LaneDepth: c.depth})
		must(b, err)
		return func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			count := newCountdown(len(msgs))
			ended := make(chan error, 1)
			go func() {
				ended <- consumer.Run(ctx, func(context.Context, pubsub.Message) error {
					count.acked()
					return nil
				})
			}()
			<-count.done
			cancel()
			must(b, <-ended)
			must(b, consumer.Close())
		}
	}
}

// newCounter is closed before what its driver needs, if that was opened before it.
func newCounter(b *testing.B, driver pubsub.Driver, start string) *counter {
	c := &counter{bus: pubsub.New(driver, pubsub.WithPublishTimeout(2*time.Minute)), start: start}
	b.Cleanup(func() { check(b, c.bus.Close()) })
	return c
}
