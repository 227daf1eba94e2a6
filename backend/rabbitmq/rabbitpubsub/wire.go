package rabbitpubsub

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/backstay-go/backstay/pubsub"
)

// Names of the headers that carry what is not the caller's, in the form of CloudEvents 1.0 (binary mode of its AMQP
// binding).
const (
	attributes    = "cloudEvents_"
	headerVersion = attributes + "specversion"
	headerID      = attributes + "id"
	headerSource  = attributes + "source"
	headerType    = attributes + "type"
	headerTime    = attributes + "time"
	headerKey     = attributes + "partitionkey"
	// headerOther holds, as a URL query, the caller's headers that the broker would obey or cannot carry.
	headerOther = "backstay-headers"
	// headerDeliveries is the broker's count of earlier deliveries.
	headerDeliveries = "x-delivery-count"
)

// encoder makes the headers of messages. It is for one goroutine at a time and uses its table again and again: the
// client has written it when its call returns.
type encoder struct {
	source string
	table  amqp.Table
	extra  []string // names of the caller's headers in table
	time   time.Time
	stamp  string
}

func newEncoder(cfg Config) *encoder {
	return &encoder{source: "/" + cfg.Prefix, table: amqp.Table{headerVersion: "1.0", headerSource: "/" + cfg.Prefix}}
}

// encode makes the AMQP message of m, which is valid until the next call.
func (e *encoder) encode(m *pubsub.Message) amqp.Publishing {
	t := e.table
	t[headerID], t[headerType] = m.ID, m.Topic
	if e.stamp == "" || !m.Time.Equal(e.time) {
		e.time, e.stamp = m.Time, m.Time.UTC().Format(time.RFC3339Nano)
		t[headerTime] = e.stamp
	}
	if m.Key == "" {
		delete(t, headerKey)
	} else {
		t[headerKey] = m.Key
	}
	e.setHeader(m.Header)
	p := amqp.Publishing{Headers: t, DeliveryMode: amqp.Persistent, Body: m.Payload}
	if len(m.ID) <= maxShort {
		p.MessageId = m.ID
	}
	return p
}

// maxShort is the longest short string of the protocol, in bytes; names of headers are such.
const maxShort = 255

func (e *encoder) setHeader(header pubsub.Header) {
	for _, name := range e.extra {
		delete(e.table, name)
	}
	e.extra = e.extra[:0]
	var other url.Values
	for name, value := range header {
		if reserved(name) {
			if other == nil {
				other = make(url.Values)
			}
			other.Set(name, value)
			continue
		}
		e.table[name] = value
		e.extra = append(e.extra, name)
	}
	if other != nil {
		e.table[headerOther] = other.Encode()
		e.extra = append(e.extra, headerOther)
	}
}

// reserved reports names that the broker takes as an order or sets itself, that are ours, or that are too long.
func reserved(name string) bool {
	return len(name) > maxShort/2 || strings.EqualFold(name, "CC") || strings.EqualFold(name, "BCC") ||
		len(name) >= 2 && strings.EqualFold(name[:2], "x-") || name == headerOther
}

// decoder makes messages of deliveries, for one goroutine at a time.
type decoder struct {
	topic string
	stamp string // the last time that was read, which the messages of one Publish share
	time  time.Time
}

// readTime is the time that text says, or none.
func (dec *decoder) readTime(text string) time.Time {
	if text != dec.stamp {
		at, _ := time.Parse(time.RFC3339Nano, text)
		dec.stamp, dec.time = text, at
	}
	return dec.time
}

// decode makes the message of what the broker delivered, whoever published it: what is missing is filled in, and values
// that are not text become text.
func (dec *decoder) decode(d *amqp.Delivery) pubsub.Message {
	m := pubsub.Message{Topic: dec.topic, Payload: d.Body, Attempt: attempt(d)}
	var other string
	for name, value := range d.Headers {
		s, text := value.(string)
		switch {
		case name == headerID && text:
			m.ID = s
		case name == headerKey && text:
			m.Key = s
		case name == headerTime && text:
			m.Time = dec.readTime(s)
		case name == headerOther && text:
			other = s
		case strings.HasPrefix(name, attributes), name == headerDeliveries:
		case text:
			setForeign(&m, name, strings.ToValidUTF8(s, "\uFFFD"))
		default:
			setForeign(&m, name, textOf(value))
		}
	}
	if other != "" {
		decodeOther(&m, other)
	}
	if m.ID == "" {
		m.ID = d.MessageId
	}
	if m.ID == "" {
		m.ID = randomID()
	}
	if m.Time.IsZero() {
		m.Time = d.Timestamp
	}
	if m.Time.IsZero() {
		m.Time = time.Now()
	}
	return m
}

// setForeign keeps a header so that the message can be published again, as a dead letter: its name becomes a token.
func setForeign(m *pubsub.Message, name, value string) {
	for _, c := range []byte(name) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			name = url.QueryEscape(name)
			break
		}
	}
	lower := strings.ToLower(name)
	if name == "" || strings.HasPrefix(lower, "ce-") || strings.HasPrefix(lower, "ce_") || strings.HasPrefix(lower, "cloudevents_") {
		return // attributes in the form of another binding
	}
	setHeader(m, name, value)
}

func setHeader(m *pubsub.Message, name, value string) {
	if m.Header == nil {
		m.Header = make(pubsub.Header)
	}
	m.Header[name] = value
}

func decodeOther(m *pubsub.Message, text string) {
	other, err := url.ParseQuery(text)
	if err != nil {
		setHeader(m, headerOther, text) // not ours
		return
	}
	for name := range other {
		setHeader(m, name, other.Get(name))
	}
}

// attempt is one more than the broker's count. A classic queue has none and marks what it delivers again.
func attempt(d *amqp.Delivery) int {
	switch n := d.Headers[headerDeliveries].(type) {
	case int64:
		return int(n) + 1
	case int32:
		return int(n) + 1
	}
	if d.Redelivered {
		return 2
	}
	return 1
}

// textOf is the value of a header that another program has set.
func textOf(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case []byte:
		return strings.ToValidUTF8(string(v), "\uFFFD")
	case []any:
		texts := make([]string, len(v))
		for i := range v {
			texts[i] = textOf(v[i])
		}
		return strings.Join(texts, ", ")
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	default:
		return strings.ToValidUTF8(fmt.Sprint(v), "\uFFFD")
	}
}

// randomID names a message that has no name, for this one delivery: named by its content it might pass for another.
func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
