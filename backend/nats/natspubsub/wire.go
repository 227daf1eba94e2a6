package natspubsub

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/backstay-go/backstay/pubsub"
)

// Names of the headers that carry what is not the caller's, in the form of CloudEvents 1.0 (binary mode of its NATS
// binding).
const (
	headerVersion = "ce-specversion"
	headerID      = "ce-id"
	headerSource  = "ce-source"
	headerType    = "ce-type"
	headerTime    = "ce-time"
	headerKey     = "ce-partitionkey"
	headerMsgID   = nats.MsgIdHdr
	// headerOther holds, as a URL query, the caller's headers that NATS would change, or obey.
	headerOther = "Backstay-Headers"
	// headerSchedule and headerTarget make the server keep a message until its time, and then store it where it belongs.
	headerSchedule = "Nats-Schedule"
	headerTarget   = "Nats-Schedule-Target"
	// headerScheduler begins the names of what the server adds then.
	headerScheduler = "Nats-Schedule"
	// ackPrefix begins the reply subject of every delivery.
	ackPrefix = "$JS.ACK."
)

// headerRoom is kept free for headers below the server's max_payload.
const headerRoom = 16 << 10

// encoder makes NATS messages. It is for one goroutine and uses its message again and again: nats.go copies it.
type encoder struct {
	cfg                                                  Config
	msg                                                  nats.Msg
	values                                               [8]string // what the headers below point to
	id, msgID, kind, stamp, key, other, schedule, target []string
	extra                                                []string // names of the caller's headers in msg
	time                                                 time.Time
}

func newEncoder(cfg Config) *encoder {
	e := &encoder{cfg: cfg}
	for i, field := range []*[]string{&e.id, &e.msgID, &e.kind, &e.stamp, &e.key, &e.other, &e.schedule, &e.target} {
		*field = e.values[i : i+1 : i+1]
	}
	e.msg.Header = nats.Header{
		headerVersion: {"1.0"}, headerID: e.id, headerMsgID: e.msgID,
		headerSource: {"/" + cfg.Prefix}, headerType: e.kind, headerTime: e.stamp,
	}
	return e
}

// encode makes the NATS message of m, which is valid until the next call.
func (e *encoder) encode(m *pubsub.Message, t *topic) *nats.Msg {
	h := e.msg.Header
	e.id[0] = escape(m.ID)
	e.msgID[0] = e.id[0]
	if _, redriven := m.Header[pubsub.HeaderRedrive]; redriven {
		e.msgID[0] = escape(pubsub.DedupID(*m))
	}
	e.kind[0] = m.Topic
	if e.stamp[0] == "" || !m.Time.Equal(e.time) {
		e.time, e.stamp[0] = m.Time, m.Time.UTC().Format(time.RFC3339Nano)
	}
	e.set(headerKey, e.key, escape(m.Key))
	e.setHeader(m.Header)
	e.msg.Subject, e.msg.Data = t.subjects[e.cfg.lane(m.Key, m.ID)], m.Payload
	at := ""
	if !m.DeliverAt.IsZero() && m.DeliverAt.After(time.Now()) {
		at = "@at " + m.DeliverAt.UTC().Format(time.RFC3339Nano)
	}
	e.set(headerSchedule, e.schedule, at)
	if at == "" {
		delete(h, headerTarget)
	} else {
		e.set(headerTarget, e.target, e.msg.Subject)
		e.msg.Subject = t.scheduleSubject(e.msgID[0])
	}
	return &e.msg
}

// set makes value, which is kept in place, that of the header, or removes the header.
func (e *encoder) set(name string, place []string, value string) {
	if value == "" {
		delete(e.msg.Header, name)
		return
	}
	place[0] = value
	e.msg.Header[name] = place
}

// setHeader replaces the caller's headers.
func (e *encoder) setHeader(header pubsub.Header) {
	h := e.msg.Header
	for _, name := range e.extra {
		delete(h, name)
	}
	e.extra = e.extra[:0]
	var other url.Values
	for name, value := range header {
		if reserved(name) || !plain(value) {
			if other == nil {
				other = make(url.Values)
			}
			other.Set(name, value)
			continue
		}
		h[name] = []string{value}
		e.extra = append(e.extra, name)
	}
	e.set(headerOther, e.other, other.Encode())
}

// decode makes the message of what the server delivered, whoever published it: headers with several values are joined,
// and what is missing is filled from the server's metadata.
func decode(topic string, nm *nats.Msg) (pubsub.Message, origin, error) {
	from, err := parseReply(nm.Reply)
	if err != nil {
		return pubsub.Message{}, origin{}, fmt.Errorf("natspubsub: topic %s: %w", topic, err)
	}
	return decodeFrom(topic, nm, from), from, nil
}

func decodeFrom(topic string, nm *nats.Msg, from origin) pubsub.Message {
	m := pubsub.Message{Topic: topic, Payload: nm.Data, Attempt: from.deliveries}
	m.Key = unescape(nm.Header.Get(headerKey))
	if m.ID = unescape(nm.Header.Get(headerID)); m.ID == "" {
		m.ID = nm.Header.Get(headerMsgID)
	}
	if m.ID == "" {
		m.ID = from.stream + ":" + strconv.FormatUint(from.sequence, 10)
	}
	var err error
	if m.Time, err = time.Parse(time.RFC3339Nano, nm.Header.Get(headerTime)); err != nil {
		m.Time = time.Unix(0, from.stored)
	}
	m.Header = decodeHeader(nm.Header)
	return m
}

// origin is what the server says of a delivery in its reply subject.
type origin struct {
	stream     string
	consumer   string
	deliveries int
	sequence   uint64 // in the stream
	number     uint64 // of the delivery, in the consumer
	stored     int64  // Unix nanoseconds
}

var errReply = errors.New("the reply subject is not one of JetStream")

// parseReply reads $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<number>.<stored>.<pending>, which may have
// <domain>.<account> before the stream, and more at the end.
func parseReply(reply string) (o origin, err error) {
	rest, ok := strings.CutPrefix(reply, ackPrefix)
	if !ok {
		return o, errReply
	}
	if n := strings.Count(rest, "."); n > 6 {
		_, rest, _ = strings.Cut(rest, ".")
		_, rest, _ = strings.Cut(rest, ".")
	} else if n < 6 {
		return o, errReply
	}
	o.stream, rest, _ = strings.Cut(rest, ".")
	o.consumer, rest, _ = strings.Cut(rest, ".")
	var numbers [4]uint64
	for i := range numbers {
		var text string
		text, rest, _ = strings.Cut(rest, ".")
		if numbers[i], err = strconv.ParseUint(text, 10, 63); err != nil {
			return o, errReply
		}
	}
	o.deliveries, o.sequence, o.number, o.stored = int(numbers[0]), numbers[1], numbers[2], int64(numbers[3])
	return o, nil
}

func decodeHeader(in nats.Header) pubsub.Header {
	h := pubsub.Header{}
	for name, values := range in {
		switch {
		case strings.HasPrefix(name, "ce-"), name == headerMsgID, name == headerOther:
		case strings.HasPrefix(name, headerScheduler): // the server's remark that it has kept a message until its time
		case len(values) == 1:
			h[name] = values[0]
		default:
			h[name] = strings.Join(values, ", ")
		}
	}
	text := in.Get(headerOther)
	if text == "" {
		return h
	}
	other, err := url.ParseQuery(text)
	if err != nil {
		h[headerOther] = text // not ours
		return h
	}
	for name := range other {
		h[name] = other.Get(name)
	}
	return h
}

// reserved reports names that the server would take as an order ("Nats-Rollup" empties a stream) or that are ours.
func reserved(name string) bool {
	return len(name) >= 5 && strings.EqualFold(name[:5], "nats-") || name == headerOther
}

// plain reports whether NATS carries the value unchanged: it trims white space and breaks lines at CR and LF.
func plain(value string) bool {
	for _, c := range []byte(value) {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return strings.TrimSpace(value) == value
}

// escape encodes an attribute as CloudEvents prescribes for headers: everything but printable ASCII, and '"' and '%'.
func escape(s string) string {
	for i := range len(s) {
		if !isPrintable(s[i]) {
			return escapeFrom(s, i)
		}
	}
	return s
}

func isPrintable(c byte) bool { return c > ' ' && c < 0x7f && c != '"' && c != '%' }

func escapeFrom(s string, first int) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.WriteString(s[:first])
	for _, c := range []byte(s[first:]) {
		if isPrintable(c) {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}

// unescape undoes escape; what is not escaped properly stays as it is.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	if v, err := url.PathUnescape(s); err == nil {
		return v
	}
	return s
}

// wireSize is an upper bound of what the server counts against its max_payload.
func wireSize(m *nats.Msg) int {
	n := len("NATS/1.0\r\n\r\n") + len(m.Data)
	for name, values := range m.Header {
		for _, v := range values {
			n += len(name) + len(v) + len(": \r\n")
		}
	}
	return n
}
