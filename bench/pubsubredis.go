package bench

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/pubsub"
)

const (
	redisLanes  = 16
	redisWindow = 512  // entries that the client reads, and acknowledges, at a time
	redisBatch  = 1024 // commands in a pipeline, as in our driver
)

// rawStreams is rueidis with the streams of our driver.
type rawStreams struct {
	client rueidis.Client
	lanes  []string
}

// openRedisStreams works on the server that others use, under a prefix of its own.
func openRedisStreams(b *testing.B, _ bool) *counter {
	option, err := redispubsub.ClientOption(redisURL())
	must(b, err)
	client, err := rueidis.NewClient(option)
	must(b, err)
	b.Cleanup(client.Close)
	prefix := ownPrefix()
	b.Cleanup(func() { check(b, unlink(client, "{"+prefix+"*")) })
	driver, err := redispubsub.Open(context.Background(), redisURL(), redispubsub.Config{Prefix: prefix, Lanes: redisLanes})
	must(b, err)
	raw := &rawStreams{client: client}
	for i := range redisLanes {
		raw.lanes = append(raw.lanes, "{"+prefix+"."+brokerTopic+"}:"+strconv.Itoa(i))
	}
	c := newCounter(b, driver, "start")
	c.publish, c.consume = raw.publish, raw.consume
	return c
}

// unlink removes the keys that match.
func unlink(client rueidis.Client, pattern string) error {
	ctx := context.Background()
	for cursor, more := uint64(0), true; more; more = cursor != 0 {
		page, err := client.Do(ctx, client.B().Scan().Cursor(cursor).Match(pattern).Count(1000).Build()).AsScanEntry()
		if err != nil {
			return err
		}
		for _, key := range page.Elements {
			if err := client.Do(ctx, client.B().Unlink().Key(key).Build()).Error(); err != nil {
				return err
			}
		}
		cursor = page.Cursor
	}
	return nil
}

// publish sends the fields that our driver sends, in pipelines as long as its own.
func (r *rawStreams) publish(b *testing.B, msgs []pubsub.Message) {
	commands := make(rueidis.Commands, 0, redisBatch)
	for first := 0; first < len(msgs); first += redisBatch {
		commands = commands[:0]
		for i := first; i < min(first+redisBatch, len(msgs)); i++ {
			m := &msgs[i]
			commands = append(commands, r.client.B().Xadd().Key(r.lanes[i%redisLanes]).Id("*").FieldValue().FieldValue("ce-id", m.ID).
				FieldValue("ce-time", m.Time.UTC().Format(time.RFC3339Nano)).FieldValue("ce-partitionkey", m.Key).
				FieldValue("ce-data", rueidis.BinaryString(m.Payload)).Build())
		}
		for _, answer := range r.client.DoMulti(context.Background(), commands...) {
			must(b, answer.Error())
		}
	}
}

// consume acknowledges what has come while it reads what is next.
func (r *rawStreams) consume(b *testing.B, n int) {
	ctx := context.Background()
	ids := make([]string, len(r.lanes))
	for i, lane := range r.lanes {
		ids[i] = ">"
		must(b, r.client.Do(ctx, r.client.B().XgroupCreate().Key(lane).Group("raw").Id("0").Mkstream().Build()).Error())
	}
	acked := make(chan error, 1)
	acked <- nil
	for seen := 0; seen < n; {
		read, err := r.client.Do(ctx, r.client.B().Xreadgroup().Group("raw", "member").Count(redisWindow/redisLanes).Block(1000).
			Streams().Key(r.lanes...).Id(ids...).Build()).AsXReadSlices()
		must(b, err)
		var acks rueidis.Commands
		for lane, entries := range read {
			ack := r.client.B().Xack().Key(lane).Group("raw").Id(entries[0].ID)
			for _, e := range entries[1:] {
				ack = ack.Id(e.ID)
			}
			acks = append(acks, ack.Build())
			seen += len(entries)
		}
		must(b, <-acked)
		go func() { acked <- r.all(acks) }()
	}
	must(b, <-acked)
}

func (r *rawStreams) all(commands rueidis.Commands) (err error) {
	for _, answer := range r.client.DoMulti(context.Background(), commands...) {
		if answer.Error() != nil {
			err = answer.Error()
		}
	}
	return err
}
