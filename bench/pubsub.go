package bench

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/backstay-go/backstay/pubsub"
)

const (
	fanOutCase    = "memory, 1 subscriber"
	fanOutFour    = "memory, 4 subscribers"
	competingCase = "memory, 4 competing consumers"
	medianCase    = "memory, latency at low load, median"
	tailCase      = "memory, latency at low load, p99"

	oneChannel      = "one channel, 1 subscriber"
	oursBatched     = ours + ", 100 a call"
	goChannelName   = "watermill 1.5.1 gochannel"
	goChannelBlocks = goChannelName + ", publish waits for the ack"
	goCloudName     = "gocloud.dev 0.47.0 mempubsub"

	bodySize = 256
	callSize = 100 // messages that one call publishes, where a subject is named for it
)

func messaging() []Case {
	l := list{area: PubSub}
	memory(&l)
	latencies(&l)
	jetStream(&l)
	brokers(&l)
	return l.cases
}

func memory(l *list) {
	for _, work := range []struct {
		name string
		shape
	}{{fanOutCase, shape{1, 1}}, {fanOutFour, shape{4, 1}}, {competingCase, shape{1, 4}}} {
		l.append(work.name, Floor, passing(work.shape, channels))
		if work.subscribers > 1 {
			l.append(work.name, oneChannel, passing(shape{1, 1}, channels))
		}
		l.append(work.name, goChannelName, passing(work.shape, goChannel(gochannel.Config{})))
		if work.members == 1 { // among several, only one would have something to do
			l.append(work.name, goChannelBlocks, passing(work.shape, goChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true})))
		}
		l.append(work.name, goCloudName, passing(work.shape, goCloud))
		l.append(work.name, ours, passing(work.shape, memBus(1)))
		l.append(work.name, oursBatched, passing(work.shape, memBus(callSize)))
	}
}

func pubSubTargets() []Target {
	const inMemory = 0.3 // of gochannel, whichever of its modes is quicker
	targets := []Target{
		{fanOutCase, ours, goChannelName, inMemory, false, 0, 4},
		{fanOutCase, ours, goChannelBlocks, inMemory, false, 0, 4},
		{fanOutCase, ours, Floor, 7, false, 0, 4},
		{fanOutCase, oursBatched, Floor, 7, false, 0, 4},
		{fanOutFour, ours, oneChannel, 30, false, 0, anyNumber},
		{fanOutFour, oursBatched, oneChannel, 30, false, 0, anyNumber},
		{medianCase, ours, Floor, 3, false, 0, anyNumber},
		{tailCase, ours, Floor, 5, false, 0, anyNumber},
	}
	return slices.Concat(targets, jetStreamTargets(), brokerTargets())
}

// shape is how many subscribers each get every message, and how many members of each compete for it.
type shape struct{ subscribers, members int }

// pass publishes n messages and returns once every subscriber has acknowledged all of them.
type pass func(n int)

// passing measures messages by the time from the first publish to the last acknowledgement.
func passing(s shape, open func(*testing.B, shape) pass) func(*testing.B) {
	return func(b *testing.B) {
		run := open(b, s)
		b.ReportAllocs()
		b.ResetTimer()
		run(b.N)
		b.StopTimer()
	}
}

// pause is what lies between two messages at low load.
const pause = 100 * time.Microsecond

func latencies(l *list) {
	for _, work := range []struct {
		name     string
		quantile float64
	}{{medianCase, 0.5}, {tailCase, 0.99}} {
		l.append(work.name, Floor, latency(work.quantile, channelSend))
		l.append(work.name, goChannelName, latency(work.quantile, goChannelSend))
		l.append(work.name, ours, latency(work.quantile, busSend))
	}
}

// latency measures from just before a publish to the beginning of the handler, one message at a time with a pause between, and
// reports a quantile of it as the time of an operation.
func latency(quantile float64, open func(b *testing.B, arrived func()) (send func())) func(*testing.B) {
	return func(b *testing.B) {
		var sent time.Time
		took := make(chan time.Duration, 1)
		send := open(b, func() { took <- time.Since(sent) })
		all := make([]time.Duration, b.N)
		for i := range all {
			time.Sleep(pause)
			sent = time.Now()
			send()
			all[i] = <-took
		}
		b.ReportMetric(quantileOf(all, quantile), "ns/op")
	}
}

func channelSend(b *testing.B, arrived func()) func() {
	messages := make(chan *passed, channelRoom)
	b.Cleanup(func() { close(messages) })
	go func() {
		for range messages {
			arrived()
		}
	}()
	payload := body()
	return func() { messages <- &passed{payload: payload} }
}

func goChannelSend(b *testing.B, arrived func()) func() {
	bus := gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{})
	b.Cleanup(func() { check(b, bus.Close()) })
	messages, err := bus.Subscribe(context.Background(), "t")
	must(b, err)
	go func() {
		for m := range messages {
			arrived()
			m.Ack()
		}
	}()
	payload := body()
	return func() { check(b, bus.Publish("t", message.NewMessage("id", payload))) }
}

func busSend(b *testing.B, arrived func()) func() {
	bus, _ := newMemBus()
	run(b, bus, pubsub.Subscription{Topic: "t", Group: "g"}, func(context.Context, pubsub.Message) error {
		arrived()
		return nil
	})
	payload := body()
	return func() {
		check(b, bus.Publish(context.Background(), pubsub.Message{ID: "id", Topic: "t", Payload: payload}))
	}
}

func body() []byte { return make([]byte, bodySize) }

// must ends a benchmark that cannot go on.
func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
