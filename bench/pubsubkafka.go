package bench

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/pubsub"
)

const (
	kafkaPrefix     = "bench."
	kafkaPartitions = 16
	kafkaCommit     = 500 * time.Millisecond // between two commits, as by default in our driver
	kafkaPoll       = 10_000                 // records at the most
)

// rawKafka is franz-go with the topic of our driver.
type rawKafka struct {
	seeds    kgo.Opt
	producer *kgo.Client
	handle   func(pubsub.Message) // does nothing, which the compiler does not see
}

// openKafka has a cluster in this process, whose work is in the figures of all subjects.
func openKafka(b *testing.B, _ bool) *counter {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	must(b, err)
	b.Cleanup(cluster.Close)
	r := &rawKafka{seeds: kgo.SeedBrokers(cluster.ListenAddrs()...), handle: func(pubsub.Message) {}}
	// Without lingering, as in our driver: what is in the buffer is sent when it may.
	r.producer, err = kgo.NewClient(r.seeds, kgo.ProducerLinger(0), kgo.MetadataMaxAge(time.Minute))
	must(b, err)
	b.Cleanup(r.producer.Close)
	client, err := kgo.NewClient(r.seeds)
	must(b, err)
	b.Cleanup(client.Close)
	driver, err := kafkapubsub.New(context.Background(), client, kafkapubsub.Config{
		Prefix: kafkaPrefix, Partitions: kafkaPartitions, CommitInterval: kafkaCommit, PublishTimeout: 2 * time.Minute})
	must(b, err)
	c := newCounter(b, driver, "start")
	c.publish, c.consume = r.publish, r.consume
	return c
}

// publish sends the headers that our driver sends.
func (r *rawKafka) publish(b *testing.B, msgs []pubsub.Message) {
	for i := range msgs {
		m := &msgs[i]
		r.producer.Produce(context.Background(), &kgo.Record{Topic: kafkaPrefix + m.Topic, Key: []byte(m.Key), Value: m.Payload,
			Headers: []kgo.RecordHeader{
				{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_id", Value: []byte(m.ID)}, {Key: "ce_source", Value: []byte("/kafka")},
				{Key: "ce_type", Value: []byte(m.Topic)}, {Key: "ce_time", Value: m.Time.UTC().AppendFormat(nil, time.RFC3339Nano)},
			}}, func(_ *kgo.Record, err error) { check(b, err) })
	}
	must(b, r.producer.Flush(context.Background()))
}

// consume commits what it has marked now and then, and in the end. The client of every other broker gives headers as text;
// this one leaves it to its user to find the ID among the headers, and to make texts of it and of the key, as a handler needs
// them. The time of a message is that of its record, unlike in our driver, which reads a header.
func (r *rawKafka) consume(b *testing.B, n int) {
	client, err := kgo.NewClient(r.seeds, kgo.ConsumerGroup("raw"), kgo.ConsumeTopics(kafkaPrefix+brokerTopic), kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(kafkaCommit), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	must(b, err)
	for seen := 0; seen < n; {
		fetches := client.PollRecords(context.Background(), kafkaPoll)
		must(b, fetches.Err())
		fetches.EachRecord(func(record *kgo.Record) {
			seen++
			r.handle(readKafka(record))
			client.MarkCommitRecords(record)
		})
	}
	must(b, client.CommitMarkedOffsets(context.Background()))
	client.Close()
}

func readKafka(record *kgo.Record) pubsub.Message {
	m := pubsub.Message{Topic: brokerTopic, Key: string(record.Key), Payload: record.Value, Time: record.Timestamp}
	for i := range record.Headers {
		if h := &record.Headers[i]; h.Key == "ce_id" {
			m.ID = string(h.Value)
		}
	}
	return m
}
