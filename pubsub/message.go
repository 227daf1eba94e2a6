package pubsub

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Message is what is published and what a handler receives. It is plain data: copy it freely, but do not change the
// Header or Payload of one that has been handed to Publish or received, since the copies share them.
type Message struct {
	// ID names the message; a consumer uses it to recognise a duplicate. Publish fills an empty one with 128 random
	// bits in hex.
	ID string
	// Topic is where the message goes: at most 249 of the ASCII letters, digits, '.', '_' and '-', with no empty
	// part between dots, so that every broker can spell it.
	Topic string
	// Key is the order key: messages of one key are handled one after the other by an ordered subscription. Empty
	// means that order does not matter. Any valid UTF-8.
	Key string
	// Header holds attributes beside the payload.
	Header Header
	// Payload is the body: any bytes, possibly none.
	Payload []byte
	// Time is when the message was published. Publish fills a zero one.
	Time time.Time
	// DeliverAt is when the message is to be delivered, at the earliest; it takes its place in the order of its key
	// then. Zero and past: at once. A driver without the capability refuses a later one.
	DeliverAt time.Time
	// Attempt is set on delivery: 1 the first time, higher after every failure or lost lease. Publish ignores it.
	Attempt int
}

// Header holds attributes of a message. Names are tokens as in HTTP, case-sensitive, and do not begin with "ce-", "ce_"
// or "cloudEvents_", in whatever case: there drivers keep ID, Topic, Key and Time in the form of CloudEvents. Values
// are any valid UTF-8.
type Header map[string]string

// Handler handles one message. It is called by up to Concurrency goroutines at a time. Its result is the verdict: nil
// acknowledges the message, an error asks for it again later (see RetryAfter and DeadLetter), and a panic counts as an
// error. Its context ends after HandleTimeout, or when a drain has used up its grace, and not when the context of
// Consumer.Run is cancelled.
type Handler = func(ctx context.Context, m Message) error

// Publisher accepts messages. *Bus is one; services and the outbox depend on this interface, so that a test or a
// decorator can stand in.
type Publisher interface {
	// Publish returns nil once all messages are accepted. See Bus.Publish.
	Publish(ctx context.Context, msgs ...Message) error
}

// maxTopic is the longest topic that every supported broker can name (Kafka's limit is the tightest).
const maxTopic = 249

// newID is 128 random bits in hex.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// Validate says what makes m impossible to publish on any broker: its topic, a header, or text that is not valid UTF-8. The
// outbox asks before it stores a message, Bus.Publish before it sends one.
func (m Message) Validate() error { return m.validate() }

func (m *Message) validate() error {
	if err := checkTopic(m.Topic); err != nil {
		return err
	}
	if !utf8.ValidString(m.ID) || m.Key != "" && !utf8.ValidString(m.Key) {
		return errors.New("ID or Key is not valid UTF-8")
	}
	if len(m.Header) == 0 { // which costs less to see than to range over
		return nil
	}
	for name, value := range m.Header {
		if !isToken(name) || reserved(name) {
			return fmt.Errorf("header name %q: it must be a token that does not begin with ce-, ce_ or cloudEvents_", name)
		}
		if !utf8.ValidString(value) {
			return fmt.Errorf("header %q is not valid UTF-8", name)
		}
	}
	return nil
}

func checkTopic(topic string) error {
	if len(topic) == 0 || len(topic) > maxTopic {
		return fmt.Errorf("topic %q has %d bytes: it must have 1 to %d", topic, len(topic), maxTopic)
	}
	before := byte('.')
	for _, c := range []byte(topic) {
		if !isNameByte(c) && (c != '.' || before == '.') {
			before = '.'
			break
		}
		before = c
	}
	if before == '.' { // or anything that does not belong there
		return fmt.Errorf("topic %q: it must be letters, digits, '_' or '-', in parts separated by single dots", topic)
	}
	return nil
}

func isNameByte(c byte) bool { return isAlnum(c) || c == '_' || c == '-' }

// isName reports whether s is not empty and has only ASCII letters, digits, '_' and '-'.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if !isNameByte(c) {
			return false
		}
	}
	return s != ""
}

// isToken reports whether s is a token in the sense of RFC 9110.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !isAlnum(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// reserved reports whether some broker's binding of CloudEvents would take the header for an attribute.
func reserved(name string) bool {
	for _, prefix := range []string{"ce-", "ce_", "cloudEvents_"} {
		if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			return true
		}
	}
	return false
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
