package redispubsub_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/pubsub"
)

const (
	benchCount   = 50_000
	benchWindow  = 512 // entries that the raw client reads, and acknowledges, at a time
	benchPayload = 256
	benchLanes   = 16
)

func benchMessages() []pubsub.Message {
	msgs := make([]pubsub.Message, benchCount)
	payload := make([]byte, benchPayload)
	now := time.Now()
	for i := range msgs {
		msgs[i] = pubsub.Message{ID: "m-" + strconv.Itoa(i), Topic: "t", Key: strconv.Itoa(i % 1000), Payload: payload, Time: now}
	}
	return msgs
}

// rawAdd has the fields that the driver sends.
func rawAdd(client rueidis.Client, lane string, m *pubsub.Message) rueidis.Completed {
	return client.B().Xadd().Key(lane).Id("*").FieldValue().FieldValue("ce-id", m.ID).
		FieldValue("ce-time", m.Time.UTC().Format(time.RFC3339Nano)).FieldValue("ce-partitionkey", m.Key).
		FieldValue("ce-data", rueidis.BinaryString(m.Payload)).Build()
}

// BenchmarkPublish compares one call of many messages, and many calls of one, with rueidis's own pipeline of the same
// fields, on a private server without persistence.
func BenchmarkPublish(b *testing.B) {
	cases := []struct {
		name string
		run  func(b *testing.B, client rueidis.Client, d *redispubsub.Driver, msgs []pubsub.Message)
	}{
		{"raw", func(b *testing.B, client rueidis.Client, _ *redispubsub.Driver, msgs []pubsub.Message) {
			rawPublish(b, client, msgs)
		}},
		{"batch", func(b *testing.B, _ rueidis.Client, d *redispubsub.Driver, msgs []pubsub.Message) {
			require.Nil(b, d.Publish(b.Context(), msgs))
		}},
		{"raw concurrent", func(b *testing.B, client rueidis.Client, _ *redispubsub.Driver, msgs []pubsub.Message) {
			concurrently(msgs, func(m *pubsub.Message) {
				if err := client.Do(b.Context(), rawAdd(client, benchLane(m), m)).Error(); err != nil {
					b.Error(err)
				}
			})
		}},
		{"concurrent", func(b *testing.B, _ rueidis.Client, d *redispubsub.Driver, msgs []pubsub.Message) {
			concurrently(msgs, func(m *pubsub.Message) {
				if errs := d.Publish(b.Context(), []pubsub.Message{*m}); errs != nil {
					b.Error(errs[0])
				}
			})
		}},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				b.StopTimer()
				client := dial(b, "redis://"+redistest.Start(b).Addr)
				d := newDriver(b, client, redispubsub.Config{Prefix: "bench"})
				msgs := benchMessages()
				publish(b, d, message("first", "")) // the topic is made before the clock starts
				b.StartTimer()
				c.run(b, client, d, msgs)
				b.StopTimer()
			}
			b.ReportMetric(float64(benchCount)*float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

func benchLane(m *pubsub.Message) string {
	n, _ := strconv.Atoi(m.Key)
	return "{bench.t}:" + strconv.Itoa(n%benchLanes)
}

func concurrently(msgs []pubsub.Message, publish func(*pubsub.Message)) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 100 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(msgs)); i = next.Add(1) - 1 {
				publish(&msgs[i])
			}
		})
	}
	wg.Wait()
}

func rawPublish(b *testing.B, client rueidis.Client, msgs []pubsub.Message) {
	b.Helper()
	cmds := make(rueidis.Commands, 0, 1024)
	for len(msgs) > 0 {
		n := min(len(msgs), 1024)
		cmds = cmds[:0]
		for i := range msgs[:n] {
			cmds = append(cmds, rawAdd(client, benchLane(&msgs[i]), &msgs[i]))
		}
		for _, answer := range client.DoMulti(b.Context(), cmds...) {
			require.NoError(b, answer.Error())
		}
		msgs = msgs[n:]
	}
}

// BenchmarkConsume compares a consumer with defaults, whose handler does nothing, with rueidis's own XREADGROUP and
// XACK in batches of 512: from as many streams, and from a single one. The clock stops when the server shows nothing
// that is not acknowledged.
func BenchmarkConsume(b *testing.B) {
	for _, c := range []struct {
		name  string
		lanes int
		run   func(b *testing.B, client rueidis.Client)
	}{
		{"raw", benchLanes, func(b *testing.B, client rueidis.Client) { rawConsume(b, client, benchLanes) }},
		{"raw, one stream", 1, func(b *testing.B, client rueidis.Client) { rawConsume(b, client, 1) }},
		{"unordered", benchLanes, func(b *testing.B, client rueidis.Client) { busConsume(b, client, false) }},
		{"ordered", benchLanes, func(b *testing.B, client rueidis.Client) { busConsume(b, client, true) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				b.StopTimer()
				client := dial(b, "redis://"+redistest.Start(b).Addr)
				d := newDriver(b, client, redispubsub.Config{Prefix: "bench", Lanes: c.lanes})
				publish(b, d, benchMessages()...)
				b.StartTimer()
				c.run(b, client)
				b.StopTimer()
			}
			b.ReportMetric(float64(benchCount)*float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// rawConsume asks for 512 entries over all streams and acknowledges what came, while the next are under way.
func rawConsume(b *testing.B, client rueidis.Client, lanes int) {
	b.Helper()
	keys, ids := make([]string, lanes), make([]string, lanes)
	for i := range keys {
		keys[i], ids[i] = "{bench.t}:"+strconv.Itoa(i), ">"
		require.NoError(b, client.Do(b.Context(), client.B().XgroupCreate().Key(keys[i]).Group("g").Id("0").Build()).Error())
	}
	acked := make(chan error, 1)
	acked <- nil
	for seen := 0; seen < benchCount; {
		all, err := client.Do(b.Context(), client.B().Xreadgroup().Group("g", "c").Count(int64(benchWindow/lanes)).Block(1000).
			Streams().Key(keys...).Id(ids...).Build()).AsXReadSlices()
		require.NoError(b, err)
		var cmds rueidis.Commands
		for key, entries := range all {
			ack := client.B().Xack().Key(key).Group("g").Id(entries[0].ID)
			for _, e := range entries[1:] {
				ack = ack.Id(e.ID)
			}
			cmds = append(cmds, ack.Build())
			seen += len(entries)
		}
		require.NoError(b, <-acked)
		go func() {
			var err error
			for _, answer := range client.DoMulti(context.Background(), cmds...) {
				if answer.Error() != nil {
					err = answer.Error()
				}
			}
			acked <- err
		}()
	}
	require.NoError(b, <-acked)
}

func busConsume(b *testing.B, client rueidis.Client, ordered bool) {
	b.Helper()
	d := newDriver(b, client, redispubsub.Config{Prefix: "bench"})
	bus := pubsub.New(d)
	c, err := bus.Open(b.Context(), pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Ordered: ordered})
	require.NoError(b, err)
	var seen atomic.Int64
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- c.Run(ctx, func(context.Context, pubsub.Message) error {
			if seen.Add(1) == benchCount {
				close(done)
			}
			return nil
		})
	}()
	<-done
	cancel()
	require.NoError(b, <-ended)
	require.NoError(b, c.Close()) // which waits for the last acknowledgements
	b.StopTimer()
	require.NoError(b, bus.Close())
}
