package natspubsub

import (
	"fmt"
	"net/url"
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
)

// headerRoom is kept free for headers below the server's max_payload.
const headerRoom = 16 << 10

// encode makes the NATS message of m.
func (c Config) encode(m *pubsub.Message) *nats.Msg {
	id := escape(m.ID)
	h := make(nats.Header, len(m.Header)+8)
	h[headerVersion] = []string{"1.0"}
	h[headerID] = []string{id}
	h[headerMsgID] = []string{id}
	h[headerSource] = []string{"/" + c.Prefix}
	h[headerType] = []string{m.Topic}
	h[headerTime] = []string{m.Time.UTC().Format(time.RFC3339Nano)}
	if m.Key != "" {
		h[headerKey] = []string{escape(m.Key)}
	}
	var other url.Values
	for name, value := range m.Header {
		if reserved(name) || !plain(value) {
			if other == nil {
				other = make(url.Values)
			}
			other.Set(name, value)
			continue
		}
		h[name] = []string{value}
	}
	if other != nil {
		h[headerOther] = []string{other.Encode()}
	}
	return &nats.Msg{Subject: c.subject(m.Topic, c.lane(m.Key, m.ID)), Header: h, Data: m.Payload}
}

// decode makes the message of what the server delivered, whoever published it: headers with several values are joined,
// and what is missing is filled from the server's metadata. The epoch is the consumer's count of deliveries: with one
// message of a lane in flight, every delivery makes those before it stale.
func decode(topic string, nm *nats.Msg) (m pubsub.Message, epoch uint64, err error) {
	meta, err := nm.Metadata()
	if err != nil {
		return m, 0, fmt.Errorf("natspubsub: topic %s: %w", topic, err)
	}
	m = pubsub.Message{Topic: topic, Payload: nm.Data, Attempt: int(meta.NumDelivered)}
	m.Key = unescape(nm.Header.Get(headerKey))
	if m.ID = unescape(nm.Header.Get(headerID)); m.ID == "" {
		m.ID = nm.Header.Get(headerMsgID)
	}
	if m.ID == "" {
		m.ID = fmt.Sprintf("%s:%d", meta.Stream, meta.Sequence.Stream)
	}
	if m.Time, err = time.Parse(time.RFC3339Nano, nm.Header.Get(headerTime)); err != nil {
		m.Time = meta.Timestamp
	}
	m.Header = decodeHeader(nm.Header)
	return m, meta.Sequence.Consumer, nil
}

func decodeHeader(in nats.Header) pubsub.Header {
	h := make(pubsub.Header, len(in))
	for name, values := range in {
		if !strings.HasPrefix(name, "ce-") && name != headerMsgID && name != headerOther {
			h[name] = strings.Join(values, ", ")
		}
	}
	other, err := url.ParseQuery(in.Get(headerOther))
	if err != nil {
		h[headerOther] = in.Get(headerOther) // not ours
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
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(s) {
		if c > ' ' && c < 0x7f && c != '"' && c != '%' {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}

// unescape undoes escape; what is not escaped properly stays as it is.
func unescape(s string) string {
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
