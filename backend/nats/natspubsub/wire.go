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
	var msgID, at, other string
	for name, values := range nm.Header {
		if len(values) == 0 {
			continue
		}
		switch name { // once over all costs less than to look for each
		case headerKey:
			m.Key = unescape(values[0])
		case headerID:
			m.ID = unescape(values[0])
		case headerMsgID:
			msgID = values[0]
		case headerTime:
			at = values[0]
		case headerOther:
			other = values[0]
		default:
			m.Header = decodeHeader(m.Header, name, values)
		}
	}
	if m.ID == "" {
		m.ID = msgID
	}
	if m.ID == "" {
		m.ID = from.stream + ":" + strconv.FormatUint(from.sequence, 10)
	}
	var err error
	if m.Time, err = time.Parse(time.RFC3339Nano, at); err != nil {
		m.Time = time.Unix(0, from.stored)
	}
	if other != "" {
		m.Header = decodeOther(m.Header, other)
	}
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
	var dots [8]int // the first ones
	n := 0
	for i := range len(rest) {
		if rest[i] == '.' {
			if n < len(dots) {
				dots[n] = i
			}
			n++
		}
	}
	if n < len(dots) {
		dots[n] = len(rest)
	}
	begin, next := 0, 0
	switch {
	case n < 6:
		return o, errReply
	case n > 6:
		begin, next = dots[1]+1, 2
	}
	part := func() string {
		text := rest[begin:dots[next]]
		begin = dots[next] + 1
		next++
		return text
	}
	o.stream, o.consumer = part(), part()
	var numbers [4]uint64
	for i := range numbers {
		if numbers[i], ok = parseNumber(part()); !ok {
			return o, errReply
		}
	}
	o.deliveries, o.sequence, o.number, o.stored = int(numbers[0]), numbers[1], numbers[2], int64(numbers[3])
	return o, nil
}

// parseNumber reads a number below 2^63.
func parseNumber(text string) (n uint64, ok bool) {
	if len(text) == 0 || len(text) > 19 { // 19 nines are below 2^64
		return 0, false
	}
	for i := range len(text) {
		digit := text[i] - '0'
		if digit > 9 {
			return 0, false
		}
		n = 10*n + uint64(digit)
	}
	return n, n < 1<<63
}

// decodeHeader adds a header to h, unless it is of the event or a remark of the server.
func decodeHeader(h pubsub.Header, name string, values []string) pubsub.Header {
	switch {
	case strings.HasPrefix(name, "ce-"), strings.HasPrefix(name, headerScheduler):
		return h
	case h == nil:
		h = make(pubsub.Header)
	}
	h[name] = values[0]
	if len(values) > 1 {
		h[name] = strings.Join(values, ", ")
	}
	return h
}

// decodeOther adds the headers that NATS would have changed.
func decodeOther(h pubsub.Header, text string) pubsub.Header {
	if h == nil {
		h = make(pubsub.Header)
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
