package natspubsub_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

const (
	benchWindow  = 4096
	benchPayload = 256
)

// benchServer is a private server over TCP, with two connections to it.
func benchServer(b *testing.B) (publisher, consumer *nats.Conn) {
	b.Helper()
	srv, err := natsembed.Start(natsembed.Config{Dir: b.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, srv.Close()) })
	for _, c := range []**nats.Conn{&publisher, &consumer} {
		*c, err = nats.Connect(srv.URL(), nats.MaxReconnects(-1))
		require.NoError(b, err)
		b.Cleanup((*c).Close)
	}
	return publisher, consumer
}

func benchDriver(b *testing.B, conn *nats.Conn) *natspubsub.Driver {
	b.Helper()
	d, err := natspubsub.New(b.Context(), conn, natspubsub.Config{Prefix: "bench", PublishTimeout: time.Minute})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, d.Close()) })
	// the stream is made before the clock starts
	require.Nil(b, d.Publish(b.Context(), []pubsub.Message{{ID: "first", Topic: "t", Time: time.Now()}}))
	return d
}

func benchMessages(n int) []pubsub.Message {
	msgs := make([]pubsub.Message, n)
	payload := make([]byte, benchPayload)
	now := time.Now()
	for i := range msgs {
		msgs[i] = pubsub.Message{ID: "m-" + strconv.Itoa(i), Topic: "t", Key: strconv.Itoa(i % 100), Payload: payload, Time: now}
	}
	return msgs
}

// rawMessage has the headers that the driver sends.
func rawMessage(m *pubsub.Message) *nats.Msg {
	return &nats.Msg{Subject: "bench.t." + strconv.Itoa(len(m.ID)%16), Data: m.Payload, Header: nats.Header{
		"ce-specversion": {"1.0"}, "ce-id": {m.ID}, nats.MsgIdHdr: {m.ID}, "ce-source": {"/bench"}, "ce-type": {m.Topic},
		"ce-partitionkey": {m.Key}, "ce-time": {m.Time.UTC().Format(time.RFC3339Nano)},
	}}
}

// BenchmarkPublish compares one call of many messages, and many calls of one, with nats.go's own asynchronous publish
// of the same headers under the same window.
func BenchmarkPublish(b *testing.B) {
	const n = 50_000
	cases := []struct {
		name string
		run  func(b *testing.B, conn *nats.Conn, d *natspubsub.Driver, msgs []pubsub.Message)
	}{
		{"raw", func(b *testing.B, conn *nats.Conn, _ *natspubsub.Driver, msgs []pubsub.Message) {
			rawPublish(b, conn, msgs)
		}},
		{"batch", func(b *testing.B, _ *nats.Conn, d *natspubsub.Driver, msgs []pubsub.Message) {
			require.Nil(b, d.Publish(b.Context(), msgs))
		}},
		{"concurrent", func(b *testing.B, _ *nats.Conn, d *natspubsub.Driver, msgs []pubsub.Message) {
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
		}},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var cpu time.Duration
			for range b.N {
				b.StopTimer()
				conn, _ := benchServer(b)
				d := benchDriver(b, conn)
				msgs := benchMessages(n)
				cpu -= processTime(b)
				b.StartTimer()
				c.run(b, conn, d, msgs)
				b.StopTimer()
				cpu += processTime(b)
			}
			b.ReportMetric(cpu.Seconds()*1e6/float64(n)/float64(b.N), "cpu-us/msg")
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// processTime is what this process, with the server in it, has spent: unlike the clock, it does not count what else runs
// on the machine.
func processTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func rawPublish(b *testing.B, conn *nats.Conn, msgs []pubsub.Message) {
	b.Helper()
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(benchWindow))
	require.NoError(b, err)
	for i := range msgs {
		if _, err := js.PublishMsgAsync(rawMessage(&msgs[i]), jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}

// BenchmarkConsume compares a consumer with defaults, whose handler does nothing, with nats.go's Consume and Ack. The
// clock stops when the server shows nothing that is not acknowledged.
func BenchmarkConsume(b *testing.B) {
	const n = 50_000
	for _, c := range []struct {
		name string
		run  func(b *testing.B, conn *nats.Conn)
	}{
		{"raw", rawConsume},
		{"unordered", func(b *testing.B, conn *nats.Conn) { busConsume(b, conn, false) }},
		{"ordered", func(b *testing.B, conn *nats.Conn) { busConsume(b, conn, true) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var cpu time.Duration
			for range b.N {
				b.StopTimer()
				publisher, consumer := benchServer(b)
				require.Nil(b, benchDriver(b, publisher).Publish(b.Context(), benchMessages(n)))
				cpu -= processTime(b)
				b.StartTimer()
				c.run(b, consumer)
				b.StopTimer()
				cpu += processTime(b)
			}
			b.ReportMetric(cpu.Seconds()*1e6/float64(n)/float64(b.N), "cpu-us/msg")
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// settled returns when the consumers have nothing left to deliver, and nothing that is not acknowledged.
func settled(b *testing.B, js jetstream.JetStream, names ...string) {
	b.Helper()
	for _, name := range names {
		for {
			c, err := js.Consumer(b.Context(), "bench~t", name)
			require.NoError(b, err)
			if info := c.CachedInfo(); info.NumPending == 0 && info.NumAckPending == 0 {
				break
			}
			<-time.After(100 * time.Microsecond)
		}
	}
}

func rawConsume(b *testing.B, conn *nats.Conn) {
	b.Helper()
	js, err := jetstream.New(conn)
	require.NoError(b, err)
	c, err := js.CreateConsumer(b.Context(), "bench~t", jetstream.ConsumerConfig{
		Durable: "raw", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 10_000})
	require.NoError(b, err)
	var seen atomic.Int64
	done := make(chan struct{})
	cc, err := c.Consume(func(m jetstream.Msg) {
		if err := m.Ack(); err != nil {
			b.Error(err)
		}
		if seen.Add(1) == 50_001 {
			close(done)
		}
	})
	require.NoError(b, err)
	<-done
	settled(b, js, "raw")
	cc.Stop()
}

func busConsume(b *testing.B, conn *nats.Conn, ordered bool) {
	b.Helper()
	d, err := natspubsub.New(b.Context(), conn, natspubsub.Config{Prefix: "bench"})
	require.NoError(b, err)
	bus := pubsub.New(d)
	c, err := bus.Open(b.Context(), pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Ordered: ordered})
	require.NoError(b, err)
	var seen atomic.Int64
	done := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- c.Run(b.Context(), func(context.Context, pubsub.Message) error {
			if seen.Add(1) == 50_001 {
				close(done)
			}
			return nil
		})
	}()
	<-done
	js, err := jetstream.New(conn)
	require.NoError(b, err)
	if !ordered {
		settled(b, js, "g")
		b.StopTimer()
	}
	require.NoError(b, bus.Close()) // which confirms the acknowledgements of lanes
	b.StopTimer()
	require.NoError(b, <-ended)
}
