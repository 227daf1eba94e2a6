package kafkapubsub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/pubsub"
)

const (
	benchMessagesPerRun = 100_000
	benchPayload        = 256
	benchPartitions     = 16
)

// benchMessages have random payloads, so that compression does not make them vanish.
func benchMessages(n int) []pubsub.Message {
	msgs := make([]pubsub.Message, n)
	payload := make([]byte, benchPayload)
	for i := range payload {
		payload[i] = byte(rand.IntN(256))
	}
	now := time.Now()
	for i := range msgs {
		msgs[i] = pubsub.Message{
			ID: fmt.Sprintf("message-%08d", i), Topic: "t", Key: strconv.Itoa(i % 1000), Payload: payload, Time: now}
	}
	return msgs
}

// rawRecords have the headers that the driver sends.
func rawRecords(prefix string, msgs []pubsub.Message) []*kgo.Record {
	records := make([]*kgo.Record, len(msgs))
	for i := range msgs {
		m := &msgs[i]
		records[i] = &kgo.Record{Topic: prefix + "t", Key: []byte(m.Key), Value: m.Payload, Headers: []kgo.RecordHeader{
			{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_id", Value: []byte(m.ID)},
			{Key: "ce_source", Value: []byte("/kafka")}, {Key: "ce_type", Value: []byte(m.Topic)},
			{Key: "ce_time", Value: m.Time.UTC().AppendFormat(nil, time.RFC3339Nano)},
		}}
	}
	return records
}

// bench is a cluster with a topic.
func bench(b *testing.B) (d *kafkapubsub.Driver, raw func(opts ...kgo.Opt) *kgo.Client) {
	b.Helper()
	c := cluster(b)
	d = newDriver(b, c, kafkapubsub.Config{Prefix: "bench.", Partitions: benchPartitions})
	r, err := d.Open(soon(b), pubsub.Subscription{Topic: "t", Group: "maker", Lease: time.Minute}) // makes the topic
	require.NoError(b, err)
	require.NoError(b, r.Close())
	return d, func(opts ...kgo.Opt) *kgo.Client { return client(b, c, opts...) }
}

// BenchmarkPublish compares one call of many messages, and many calls of one, with the client's own Produce of the same
// headers.
func BenchmarkPublish(b *testing.B) {
	cases := []struct {
		name string
		run  func(b *testing.B, raw *kgo.Client, d *kafkapubsub.Driver, msgs []pubsub.Message)
	}{
		{"raw", func(b *testing.B, raw *kgo.Client, _ *kafkapubsub.Driver, msgs []pubsub.Message) {
			rawPublish(b, raw, msgs)
		}},
		{"batch", func(b *testing.B, _ *kgo.Client, d *kafkapubsub.Driver, msgs []pubsub.Message) {
			require.Nil(b, d.Publish(b.Context(), msgs))
		}},
		{"concurrent", func(b *testing.B, _ *kgo.Client, d *kafkapubsub.Driver, msgs []pubsub.Message) {
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
			for range b.N {
				b.StopTimer()
				d, client := bench(b)
				raw := client()
				msgs := benchMessages(benchMessagesPerRun)
				require.Nil(b, d.Publish(b.Context(), msgs[:1]))
				rawPublish(b, raw, msgs[:1])
				b.StartTimer()
				c.run(b, raw, d, msgs)
			}
			b.ReportMetric(float64(benchMessagesPerRun)*float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

func rawPublish(b *testing.B, raw *kgo.Client, msgs []pubsub.Message) {
	b.Helper()
	for _, rec := range rawRecords("bench.", msgs) {
		raw.Produce(b.Context(), rec, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	require.NoError(b, raw.Flush(b.Context()))
}

// BenchmarkConsume compares a consumer with defaults, whose handler does nothing, with the client's own polls, marks and
// commits every 500 ms. The clock starts when the group stands, and stops when the
// cluster knows that everything is settled.
func BenchmarkConsume(b *testing.B) {
	for _, c := range []struct {
		name string
		run  func(b *testing.B, d *kafkapubsub.Driver, raw func(...kgo.Opt) *kgo.Client)
	}{
		{"raw", func(b *testing.B, _ *kafkapubsub.Driver, raw func(...kgo.Opt) *kgo.Client) { rawConsume(b, raw) }},
		{"unordered", func(b *testing.B, d *kafkapubsub.Driver, _ func(...kgo.Opt) *kgo.Client) { busConsume(b, d, false) }},
		{"ordered", func(b *testing.B, d *kafkapubsub.Driver, _ func(...kgo.Opt) *kgo.Client) { busConsume(b, d, true) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var cpu time.Duration
			for range b.N {
				b.StopTimer()
				d, raw := bench(b)
				require.Nil(b, d.Publish(b.Context(), benchMessages(benchMessagesPerRun)))
				admin := kadm.NewClient(raw())
				runtime.GC()
				cpu -= processTime(b)
				b.StartTimer()
				c.run(b, d, raw)
				b.StopTimer()
				cpu += processTime(b)
				lags, err := admin.Lag(b.Context(), "g.bench.t", "bench.g.t")
				require.NoError(b, err)
				for _, lag := range lags {
					require.Contains(b, []int64{0, benchMessagesPerRun}, lag.Lag.Total()) // of the one that consumed, and the other
				}
			}
			b.ReportMetric(cpu.Seconds()*1e6/float64(benchMessagesPerRun)/float64(b.N), "cpu-us/msg")
			b.ReportMetric(float64(benchMessagesPerRun)*float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// processTime is what this process, with the cluster in it, has spent: unlike the clock, it does not count what else runs
// on the machine.
func processTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func rawConsume(b *testing.B, raw func(...kgo.Opt) *kgo.Client) {
	b.Helper()
	cl := raw(kgo.ConsumerGroup("g.bench.t"), kgo.ConsumeTopics("bench.t"), kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(500*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for seen := 0; seen < benchMessagesPerRun; {
		fetches := cl.PollRecords(b.Context(), 10_000)
		require.NoError(b, fetches.Err())
		fetches.EachRecord(func(rec *kgo.Record) {
			seen++
			cl.MarkCommitRecords(rec)
		})
	}
	require.NoError(b, cl.CommitMarkedOffsets(b.Context()))
	b.StopTimer()
	cl.Close()
}

func busConsume(b *testing.B, d *kafkapubsub.Driver, ordered bool) {
	b.Helper()
	b.StopTimer()
	bus := pubsub.New(d)
	c, err := bus.Open(b.Context(), pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Ordered: ordered})
	require.NoError(b, err)
	var seen atomic.Int64
	ctx, cancel := context.WithCancel(b.Context())
	b.StartTimer()
	require.NoError(b, c.Run(ctx, func(context.Context, pubsub.Message) error {
		if seen.Add(1) == benchMessagesPerRun {
			cancel()
		}
		return nil
	}))
}
