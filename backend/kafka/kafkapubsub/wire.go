package kafkapubsub

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/backstay-go/backstay/pubsub"
)

// Names of the headers that carry what is not the caller's, in the form of CloudEvents 1.0 (binary mode of its Kafka
// binding). The key is that of the record.
const (
	headerPrefix  = "ce_"
	headerVersion = "ce_specversion"
	headerID      = "ce_id"
	headerSource  = "ce_source"
	headerType    = "ce_type"
	headerTime    = "ce_time"
	ownHeaders    = 5
)

var version = []byte("1.0")

// encode makes the records of msgs. They share memory with each other and with msgs.
func (d *Driver) encode(msgs []pubsub.Message) []kgo.Record {
	records := make([]kgo.Record, len(msgs))
	total := 0
	for i := range msgs {
		total += ownHeaders + len(msgs[i].Header)
	}
	headers := make([]kgo.RecordHeader, 0, total)
	var name, stamp []byte
	var at time.Time
	for i := range msgs {
		m, rec := &msgs[i], &records[i]
		if i == 0 || m.Topic != msgs[i-1].Topic {
			name = []byte(m.Topic)
		}
		if stamp == nil || !m.Time.Equal(at) {
			at, stamp = m.Time, m.Time.UTC().AppendFormat(nil, time.RFC3339Nano)
		}
		first := len(headers)
		headers = append(headers,
			kgo.RecordHeader{Key: headerVersion, Value: version}, kgo.RecordHeader{Key: headerID, Value: []byte(m.ID)},
			kgo.RecordHeader{Key: headerSource, Value: d.source}, kgo.RecordHeader{Key: headerType, Value: name},
			kgo.RecordHeader{Key: headerTime, Value: stamp})
		for key, value := range m.Header {
			headers = append(headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
		}
		rec.Topic, rec.Value = d.cfg.Prefix+m.Topic, m.Payload
		rec.Headers = headers[first:len(headers):len(headers)]
		if m.Key != "" {
			rec.Key = []byte(m.Key)
		}
	}
	return records
}

// decoder makes messages of records, for one goroutine at a time.
type decoder struct {
	topic string
	text  strings.Builder // what is being filled with the text of several messages
	stamp []byte          // the last time that was read, which the messages of one Publish share
	time  time.Time
}

// textMost is how much memory the texts of messages share: as much is kept by somebody who keeps one of them.
const textMost = 1 << 10

// decode makes the message of a record, whoever published it: headers with several values are joined, and what is
// missing is filled from the record itself.
func (d *decoder) decode(rec *kgo.Record, m *pubsub.Message) {
	m.Topic, m.Payload, m.Time = d.topic, rec.Value, rec.Timestamp
	var id []byte
	for i := range rec.Headers {
		h := &rec.Headers[i]
		switch {
		case !strings.HasPrefix(h.Key, headerPrefix):
			setHeader(m, len(rec.Headers)-i, h.Key, string(h.Value))
		case h.Key == headerID:
			id = h.Value
		case h.Key == headerTime:
			d.readTime(h.Value, m)
		}
	}
	if len(id) == 0 {
		id = fmt.Appendf(nil, "%s:%d:%d", d.topic, rec.Partition, rec.Offset)
	}
	m.ID, m.Key = d.texts(id, rec.Key)
}

// texts makes strings, which costs no memory of its own for most messages.
func (d *decoder) texts(id, key []byte) (string, string) {
	n := len(id) + len(key)
	if d.text.Cap()-d.text.Len() < n {
		d.text.Reset()
		d.text.Grow(max(n, textMost))
	}
	first := d.text.Len()
	d.text.Write(id)
	d.text.Write(key)
	both := d.text.String()[first:]
	return both[:len(id)], both[len(id):]
}

// readTime takes the time from the header, if it is one.
func (d *decoder) readTime(value []byte, m *pubsub.Message) {
	if !bytes.Equal(value, d.stamp) {
		t, err := time.Parse(time.RFC3339Nano, string(value))
		if err != nil {
			return
		}
		d.stamp, d.time = bytes.Clone(value), t
	}
	m.Time = d.time
}

// setHeader adds a header, of which room may follow.
func setHeader(m *pubsub.Message, room int, name, value string) {
	if m.Header == nil {
		m.Header = make(pubsub.Header, room)
	} else if before, twice := m.Header[name]; twice {
		value = before + ", " + value
	}
	m.Header[name] = value
}

// partitioner spreads records over the partitions of a topic: those with a key as Kafka's own clients do (murmur2), so
// that other programs agree about the place of a key, and the others in turn, so that all members of a group get some.
type partitioner struct{}

func (partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	return &topicPartitioner{keyed: kgo.StickyKeyPartitioner(nil).ForTopic(topic)}
}

type topicPartitioner struct {
	keyed kgo.TopicPartitioner
	next  int
}

func (p *topicPartitioner) RequiresConsistency(rec *kgo.Record) bool { return rec.Key != nil }

func (p *topicPartitioner) Partition(rec *kgo.Record, n int) int {
	if rec.Key != nil {
		return p.keyed.Partition(rec, n)
	}
	p.next++
	return p.next % n
}
